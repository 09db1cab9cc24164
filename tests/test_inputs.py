"""What is given to change, recovery and report: what is refused says so, and nothing wrong is taken silently."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gee_polygons.cli import main
from gee_polygons.embeddings.quantization import BANDS
from gee_polygons.errors import UsageError
from gee_polygons.report import CONTROL_KINDS, REFERENCE_KINDS, of_kind
from gee_polygons.site import Site, SiteCollection

YEARS = range(2018, 2025)


def small_table(n_sites=6, seed=0):
    v = np.eye(64)[0] + np.random.default_rng(seed).normal(size=(n_sites * len(YEARS), 64)) * 0.01
    table = pd.DataFrame(v / np.linalg.norm(v, axis=1, keepdims=True), columns=list(BANDS))
    return table.assign(site_id=np.repeat([f"s{i}" for i in range(n_sites)], len(YEARS)), year=[*YEARS] * n_sites)


def some_sites(n_sites=6, **properties):
    from shapely import box

    return SiteCollection(
        [
            Site(
                polygon=box(-48 + i * 0.01, -22, -47.995 + i * 0.01, -21.995),
                site_id=f"s{i}",
                start_year=2019 if i < 3 else None,
                properties={name: values[i] for name, values in properties.items()},
            )
            for i in range(n_sites)
        ]
    )


# --- kinds of sites ---


def test_kinds_may_be_written_in_capitals_and_with_spaces():
    sites = some_sites(kind=[None, "restoration", "", "Reference", " control ", "CONTROL"])
    assert of_kind(small_table(), sites, REFERENCE_KINDS, None) == ["s3"]
    assert of_kind(small_table(), sites, CONTROL_KINDS, None) == ["s3", "s4", "s5"]


@pytest.mark.parametrize("command", ["change", "recovery", "report"])
def test_a_table_without_site_ids_is_refused_in_one_line(tmp_path, command):
    small_table().drop(columns="site_id").to_csv(tmp_path / "t.csv", index=False)
    some_sites(kind=["a"] * 5 + ["reference"]).to_geodataframe().to_file(tmp_path / "s.geojson", driver="GeoJSON")
    out = tmp_path / ("o.html" if command == "report" else "o.csv")
    call = [command, str(tmp_path / "t.csv"), "--sites", str(tmp_path / "s.geojson"), "-o", str(out)]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 2
    assert done.output.startswith("error: the table has no column 'site_id'")
    with pytest.raises(UsageError, match="no column 'site_id'"):
        of_kind(small_table().drop(columns="site_id"), some_sites(kind=["control"] * 6), CONTROL_KINDS, None)
