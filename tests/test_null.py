"""The null of the change test: the noise that a table shows, found again, and how often it is taken for a change."""

import numpy as np
import pytest
from simulated_null import null_table, null_units

from gee_polygons._change.null import null_noise
from gee_polygons._change.templates import Templates, fit_templates
from gee_polygons.change import change


@pytest.mark.parametrize(
    ("memory", "lasting"), [(0.0, 0.0), (0.5, 1.0), (0.7, 1.0), (0.5, 0.5), (0.7, 0.5), (0.9, 0.5)]
)
def test_the_memory_of_noise_is_found_again(memory, lasting):
    units = null_units(150, 3, memory=memory, lasting=lasting, drift=0.0)
    bank = Templates.over(units.shape[1])
    found = null_noise(fit_templates(units, bank), bank)
    assert found.spectrum.sum() == pytest.approx(1)
    for lag in (1, 2, 3):
        assert found.lasting * found.memory**lag == pytest.approx(lasting * memory**lag, abs=0.09)


def test_the_spectrum_of_noise_is_found_again():
    units = null_units(150, 4, memory=0.5, lasting=0.5, drift=0.0)
    bank = Templates.over(units.shape[1])
    found = np.sort(null_noise(fit_templates(units, bank), bank).spectrum)[::-1]
    true = np.exp(-np.arange(64) / 12)
    assert found[:20] == pytest.approx(true[:20] / true.sum(), rel=0.25)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alike": 0.4},
        {"memory": 0.5},
        {"memory": 0.5, "alike": 0.4},
        {"memory": 0.5, "lasting": 0.5},
        {"memory": 0.7, "lasting": 0.5},
        {"memory": 0.9, "lasting": 0.5},
        {"memory": 0.9, "lasting": 0.25},
    ],
    ids=str,
)
def test_false_discoveries_where_nothing_changed(options):
    # without a change every flag is false: tables with any flag are the false-discovery rate
    any_flag = [change(null_table(40, seed, **options), level=0.1).sites["flag"].any() for seed in range(10)]
    assert np.mean(any_flag) <= 0.3  # 10 tables at a level of 0.1: more than three has a chance of 1 %
