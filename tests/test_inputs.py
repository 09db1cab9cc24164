"""What is given to change, recovery and report: what is refused says so, and nothing wrong is taken silently."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gee_polygons.cli import main
from gee_polygons.embeddings.quantization import BANDS
from gee_polygons.errors import UsageError
from gee_polygons.recovery import recovery
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


# --- bands: order, blocks ---


def way_table(n_sites=6, n_refs=3, seed=0):
    rng = np.random.default_rng(seed)
    way = np.clip((np.arange(7)[:, None] - 1) * 0.12, 0, 1)
    rows = [(1 - way) * np.eye(64)[0] + way * np.eye(64)[1]] * n_sites + [np.eye(64)[[1] * 7]] * n_refs
    v = np.vstack(rows) + rng.normal(size=((n_sites + n_refs) * 7, 64)) * 0.02
    ids = [f"s{i}" for i in range(n_sites)] + [f"r{i}" for i in range(n_refs)]
    table = pd.DataFrame(v / np.linalg.norm(v, axis=1, keepdims=True), columns=list(BANDS))
    return table.assign(site_id=np.repeat(ids, 7), year=[*YEARS] * len(ids), n_pixels=500.0)


STARTS = {f"s{i}": 2019 for i in range(6)}
REFS = ["r0", "r1", "r2"]


@pytest.mark.parametrize("background", ["references", "all", ["s4", "s5", "r0", "r1"]])
def test_the_order_of_rows_and_of_references_changes_nothing(background):
    table = way_table()
    whole = recovery(table, references=REFS, start_years=STARTS, background=background)
    mixed = table.sample(frac=1, random_state=3)
    turned = background[::-1] if isinstance(background, list) else background
    other = recovery(mixed, references=REFS[::-1], start_years=STARTS, background=turned)
    assert other.sites["site_id"].tolist() == [s for s in mixed["site_id"].unique() if s in STARTS]
    by_site = [found.sites.sort_values("site_id").reset_index(drop=True) for found in (whole, other)]
    pd.testing.assert_frame_equal(*by_site, check_exact=True)
    by_year = [found.yearly.sort_values(["site_id", "year"]).reset_index(drop=True) for found in (whole, other)]
    pd.testing.assert_frame_equal(*by_year, check_exact=True)


def test_sites_in_other_chunks_have_the_same_bands(monkeypatch):
    whole = recovery(way_table(), references=REFS, start_years=STARTS).sites
    monkeypatch.setattr("gee_polygons._change.bands._SITES_AT_A_TIME", 2)
    # what each site's own bend draws differs; nothing else does
    assert recovery(way_table(), references=REFS, start_years=STARTS).sites["share"].equals(whole["share"])


def test_blocks_name_their_site_in_a_column_of_its_own_or_are_refused():
    table, parts = way_table(), []
    for k in range(6):
        part = way_table(seed=k + 1).query("site_id == 's0'")
        parts.append(part.assign(site_id=f"s0/{k}", block_id=k, block_of="s0", n_pixels=50.0))
    blocks = pd.concat(parts)
    found = recovery(table, references=REFS, start_years=STARTS, blocks=blocks).sites
    same = blocks.assign(site_id="s0").drop(columns="block_of").sample(frac=1, random_state=0)
    again = recovery(table, references=REFS, start_years=STARTS, blocks=same).sites
    pd.testing.assert_frame_equal(found, again)
    without = recovery(table, references=REFS, start_years=STARTS).sites
    assert (found.loc[0, ["share_low", "share_high"]] != without.loc[0, ["share_low", "share_high"]]).all()
    with pytest.raises(UsageError, match=r"'s0/0' is none of the 6 sites that are measured.*block_of"):
        recovery(table, references=REFS, start_years=STARTS, blocks=blocks.drop(columns="block_of"))
