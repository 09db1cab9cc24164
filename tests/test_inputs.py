"""What is given to change, recovery and report: what is refused says so, and nothing wrong is taken silently."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from gee_polygons.alphaearth import BANDS
from gee_polygons.change import change
from gee_polygons.cli.main import main
from gee_polygons.errors import DataWarning, OutputError, SiteError, UsageError
from gee_polygons.recovery import recovery
from gee_polygons.report import check_report, of_kind, prototypes_of, write_report
from gee_polygons.report.roles import CONTROL_KINDS, REFERENCE_KINDS
from gee_polygons.site import Site, SiteCollection, sites_from_geodataframe

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
    whole = recovery(way_table(), references=REFS, start_years=STARTS)
    monkeypatch.setattr("gee_polygons.recovery.estimation._SITES_AT_A_TIME", 2)
    parts = recovery(way_table(), references=REFS, start_years=STARTS)
    pd.testing.assert_frame_equal(parts.sites, whole.sites, check_exact=False, rtol=1e-12)
    pd.testing.assert_frame_equal(parts.yearly, whole.yearly, check_exact=False, rtol=1e-12)


# --- tables that look right ---


def constant(table):
    table.loc[:, list(BANDS)] = np.eye(64)[0] * 0.9
    return table


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda t: t.assign(**{b: np.rint(t[b] * 127) for b in BANDS}), "look like codes or scaled"),
        (lambda t: t.assign(year=pd.to_datetime(t["year"].astype(str))), "whole numbers like 2018"),
        (lambda t: t.assign(year=t["year"] + 0.9), r"found 2018\.9"),
        (lambda t: t.assign(year=t["year"].astype(str)), "found '2018'"),
        (lambda t: t.assign(site_id=t["site_id"].where(t["year"] > 2018)), "rows without a site_id"),
    ],
)
def test_values_that_can_t_be_right_are_refused(made, words):
    with pytest.raises(UsageError, match=words):
        change(made(small_table()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"baseline": []}, "a year like 2018, or some of them"),
        ({"baseline": "2018"}, "found '2018'"),
        ({"baseline": 2018.5}, r"found 2018\.5"),
        ({"baseline": {"nobody": 2018}}, "baseline: site 'nobody'"),
        ({"baseline": {"s0": 1999}}, "1999 isn't in the table"),
        ({"prototypes": {"forest": np.eye(64)[1]}}, r"two labels with data.*found \['forest'\]"),
    ],
)
def test_a_baseline_is_a_year_and_of_a_site_and_labels_are_two(options, words):
    with pytest.raises(UsageError, match=words):
        change(small_table(), **options)


def test_whole_floats_are_years_and_unknown_sizes_are_one_pixel():
    table = small_table()
    whole = change(table, baseline=2018)
    for same in (
        change(table, baseline=2018.0),
        change(table, baseline=(2018,)),
        change(table, baseline=dict.fromkeys(table["site_id"].unique(), np.int64(2018))),
        change(table.assign(year=table["year"].astype(float)), baseline=2018),
        change(table.assign(n_pixels=np.nan), baseline=2018),
    ):
        pd.testing.assert_frame_equal(same.yearly, whole.yearly)


def test_a_site_without_data_in_the_baseline_is_named():
    table = small_table()
    table.loc[(table["site_id"] == "s1") & (table["year"] == 2018), list(BANDS)] = np.nan
    with pytest.warns(DataWarning, match="baseline's years have no angles: 1, the first is 's1'"):
        found = change(table, baseline=2018)
    assert found.yearly.query("site_id == 's1'")["angle_deg"].isna().all()


def test_controls_without_any_data_take_nothing_off():
    table = small_table()
    table.loc[table["site_id"] == "s1", list(BANDS)] = np.nan
    with pytest.raises(UsageError, match="none of the 1 named site has data"):
        change(table, background=["s1"])
    assert change(table, background=["s1", "s2", "s3"]).background == "the median step of 2 control sites"


@pytest.mark.parametrize("background", ["all", None, ["s1", "s2"]])
def test_what_never_varies_never_changed(background):
    found = change(constant(small_table()), background=background).sites
    assert found["p"].tolist() == pytest.approx([1.0] * 6)
    assert not found["flag"].any()


def test_one_label_in_the_sites_is_said_and_left_out():
    with pytest.warns(DataWarning, match="the same label"):
        assert prototypes_of(small_table(), some_sites(label=["forest"] * 6)) is None
    assert len(prototypes_of(small_table(), some_sites(label=["a", "b", None, None, None, None]))) == 2 * len(YEARS)


def test_a_site_that_hasn_t_started_has_no_share():
    found = recovery(way_table(), references=REFS, start_years=STARTS | {"s5": 2040, "s4": 2025})
    late = found.sites.set_index("site_id").loc[["s4", "s5"]]
    assert late["status"].tolist() == ["not_started"] * 2
    assert late[["share", "rate", "rank"]].isna().all(axis=None)
    assert late["group"].tolist() == ["no evidence"] * 2
    assert late["evidence"].tolist() == ["its start lies after its last year with data"] * 2


def test_a_year_without_references_says_so():
    table = way_table()
    table.loc[table["site_id"].isin(REFS) & (table["year"] == 2021), list(BANDS)] = np.nan
    found = recovery(table, references=REFS, start_years=STARTS, background=None).yearly
    assert set(found.loc[found["year"] == 2021, "status"]) == {"no_reference"}
    assert set(found.loc[found["year"] != 2021, "status"]) == {"ok"}


# --- the command line ---


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    way_table().to_csv(folder / "t.csv", index=False)
    some_sites(kind=["site"] * 6).to_geodataframe().to_file(folder / "s.geojson", driver="GeoJSON")
    return folder


def run(files, command, *options):
    done = CliRunner().invoke(main, [command, str(files / "t.csv"), *map(str, options)])
    assert done.exit_code in (1, 2), done.output
    assert len(done.output.splitlines()) == 1, done.output
    return done.output


def test_what_can_t_be_written_is_said_before_the_work(files, monkeypatch):
    monkeypatch.setattr("gee_polygons.cli.change._read", lambda *a: pytest.fail("the work began"))
    sites = ["--sites", files / "s.geojson"]
    same = ["-o", files / "o.csv", "--yearly", files / "." / "o.csv"]
    for command in ("change", "recovery"):
        assert "are the same file" in run(files, command, *sites, *same)
    (files / "folder.html").mkdir()
    assert "it is a folder" in run(files, "report", "-o", files / "folder.html", "--overwrite")
    assert "give --sites" in run(files, "report", "--references", "r0", "-o", files / "o.html")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(OutputError, match="can't write into the folder"):
        check_report(files / "o.html")


@pytest.mark.parametrize("command", ["change", "recovery", "report"])
def test_messages_have_the_words_of_the_command(files, command):
    out = ["--sites", files / "s.geojson", "-o", files / ("x.html" if command == "report" else "x.csv")]
    said = run(files, command, *out, "--controls", "nobody")
    assert said == "error: --controls: site 'nobody' is not among the table's 9 sites\n"
    said = run(files, command, *out, "--id-column", "nothing")
    assert "--id-column" in said
    assert "id_column=" not in said


def test_duplicates_are_named_three_at_most():
    gdf = some_sites().to_geodataframe()
    with pytest.raises(SiteError, match=r"s0 \(rows 0, 6\), s1 \(.*s2 \(rows 2, 8\) and 3 more; make"):
        sites_from_geodataframe(pd.concat([gdf, gdf], ignore_index=True))


def test_warnings_are_one_line_each_on_the_command_line(files):
    few = pd.read_csv(files / "t.csv").query("site_id in ['s0', 's1']")
    few.to_csv(files / "few.csv", index=False)
    done = CliRunner().invoke(main, ["change", str(files / "few.csv"), "-o", str(files / "few_o.csv")])
    assert done.exit_code == 0
    assert done.stderr.startswith("warning: a table of 2 sites is too small to estimate the drift")
    assert len(done.stderr.splitlines()) == 1


def test_table_and_sites_that_share_few_ids_or_none(tmp_path):
    with pytest.warns(DataWarning, match="share 6 ids: the table has 9 sites, the sites given are 6"):
        write_report(way_table(), tmp_path / "a.html", sites=some_sites())
    strangers = way_table().assign(site_id=lambda t: "x" + t["site_id"])
    with pytest.raises(UsageError, match="no id in common, for example 'xr0' and 's0'"):
        write_report(strangers, tmp_path / "b.html", sites=some_sites())
