"""Chips for training, with the real torch. Skipped where it isn't installed: CONTRIBUTING.md says how to run this."""

import pickle

import numpy as np
import pytest
from rangeserver import serve

from gee_polygons.collection import build, load
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import UsageError
from gee_polygons.network.request import Network
from gee_polygons.sources.sample import truth_codes
from gee_polygons.zonal.grid import Grid

torch = pytest.importorskip("torch", reason="torch is an extra: pip install 'gee_polygons[torch]'")

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=10)


@pytest.fixture(scope="module")
def chips(sample_archive):
    return load("gee-polygons/sample").to_torchgeo_dataset(years=[2022, 2023], chip_size=96)


def test_chips_are_the_truth(chips):
    assert len(chips) == 2 * 3 * 9
    for number in range(0, len(chips), 7):
        sample = chips[number]
        west, south, east, north = sample["bounds"].tolist()
        assert (east - west, north - south) == (960, 960)
        grid = Grid(crs=sample["crs"], transform=(10, 0, west, 0, -10, north), shape=(96, 96))
        truth = truth_codes(grid.crs, grid.window, sample["year"])
        assert sample["image"].dtype == torch.float32
        assert np.array_equal(sample["image"].numpy(), np.nan_to_num(codes_to_vectors(truth)))
        assert np.array_equal(sample["valid"].numpy(), (truth != -128).all(axis=0))
    with pytest.raises(IndexError):
        chips[len(chips)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_batches_them(chips, workers):
    batches = list(torch.utils.data.DataLoader(chips, batch_size=16, num_workers=workers))
    assert sum(len(batch["year"]) for batch in batches) == len(chips)
    assert batches[0]["image"].shape == (16, 64, 96, 96)
    assert batches[0]["bounds"].shape == (16, 4)
    assert torch.equal(batches[0]["image"][5], chips[5]["image"])
    length = batches[0]["image"].square().sum(dim=1).sqrt()[batches[0]["valid"]]
    assert (length - 1).abs().max() < 0.012


def test_workers_read_what_is_far_away(sample_archive, tmp_path):
    with serve(sample_archive.parent) as server:
        collection = build("gee-polygons/sample", source=f"{server.url}/aef_index.parquet", date_range=(2023, 2023),
                           path=tmp_path / "c.parquet", network=QUICK)  # fmt: skip
        chips = collection.to_torchgeo_dataset(bands=["A00", "A63"], chip_size=64)
        assert torch.equal(pickle.loads(pickle.dumps(chips))[3]["image"], chips[3]["image"])
        options = {"batch_size": 25, "num_workers": 2, "timeout": 60}
        for method in ("spawn", "fork"):
            batches = torch.utils.data.DataLoader(chips, multiprocessing_context=method, **options)
            assert sum(len(batch["year"]) for batch in batches) == len(chips)


def test_a_chip_has_pixels():
    with pytest.raises(UsageError, match="chip_size is 1 or more"):
        load("gee-polygons/sample").to_torchgeo_dataset(chip_size=0)
