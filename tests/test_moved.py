"""Every public name of version 0.0.4 works, or says what to use instead."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest

from gee_polygons import SiteCollection, load_sites
from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.charts import plot_class_area_stacked, plot_class_distribution
from gee_polygons.datasets.mapbiomas import MAPBIOMAS, MAPBIOMAS_LULC
from gee_polygons.errors import MovedError
from gee_polygons.moved import INSTEAD, SAME

PAGE = Path(__file__).parents[1] / "docs" / "coming_from_0.0.4.md"

# `__all__` of the modules of the published wheel
NAMES = {
    "": "SiteCollection ChunkedResult ExportDestination ExportConfig ExportTask",
    "charts": "DEFAULT_PALETTE prepare_chart_data get_class_colors plot_class_distribution plot_class_area_stacked "
    "plot_class_distribution_interactive plot_class_area_stacked_interactive plot_extraction plot_aggregated "
    "plot_aggregated_interactive",
    "collection": "calculate_chunk_size chunk_items ChunkedResult SiteCollection",
    "core": "Site load_sites",
    "datasets.alpha_embeddings": "EMBEDDING_BANDS ALPHA_EMBEDDINGS EMBEDDING_VIS_DEFAULT EMBEDDING_VIS_ALT1 "
    "EMBEDDING_VIS_ALT2 get_embedding_image",
    "datasets.dynamicworld": "DYNAMIC_WORLD_CLASS_MAP DYNAMIC_WORLD_PALETTE DYNAMIC_WORLD",
    "datasets.mapbiomas": "DEFREG_CLASS_MAP DEFREG_PALETTE MAPBIOMAS_DEFREG LULC_CLASS_MAP LULC_PALETTE MAPBIOMAS_LULC",
    "datasets.sentinel2": "SENTINEL2_NDVI_EVI BANDS_TRUE_COLOR BANDS_FALSE_COLOR BANDS_AGRICULTURE SENTINEL_VIS "
    "SENTINEL_VIS_BRIGHT add_indices mask_s2_clouds get_s2_collection get_sentinel_composite",
    "export": "ExportDestination ExportConfig ExportTask",
    "extract": "",
    "indices": "",
    "layers": "CategoricalLayer ContinuousLayer",
    "site": "Site load_sites sites_from_geodataframe",
    "visualize": "NDVI_VIS EVI_VIS VisParams render_thumbnail add_label render_image get_vis_params_from_layer "
    "get_image_for_layer render_site_layer export_frames_as_gif export_frames_as_strip export_layer_gif "
    "export_layer_timestrip",
}
MEMBERS = {
    "site.Site": "feature geometry start_year site_id area_ha properties buffer years from_geojson "
    "from_geodataframe_row extract_categorical extract_continuous show show_layer",
    "site.SiteCollection": "site_ids feature_collection filter filter_by_property from_geojson from_sites "
    "from_feature_collection extract_categorical extract_continuous export_categorical export_continuous",
    "layers.CategoricalLayer": "asset_id temporal_mode band_pattern band scale class_map palette band_name class_name "
    "class_color",
    "layers.ContinuousLayer": "collection_id bands scale preprocess",
}
TABLE = PAGE.read_text(encoding="utf-8").partition("## Every public name")[2]


def in_words(name):
    return f"`{name}`" in TABLE or f".{name}`" in TABLE


@pytest.mark.parametrize("module", NAMES)
def test_every_name_works_or_says_what_to_use(module):
    full = f"gee_polygons.{module}".rstrip(".")
    home = importlib.import_module(full)
    assert home.__name__ == full
    with pytest.raises(ImportError, match="no_such_name"):
        exec(f"from {full} import no_such_name")
    assert not hasattr(home, "no_such_name")
    for name in NAMES[module].split():
        assert in_words(name), name
        if f"{full}.{name}" in INSTEAD:
            with pytest.raises(MovedError, match=rf"{name} of version 0.0.4 is gone; instead: .*coming_from"):
                exec(f"from {full} import {name}")
        else:
            found: dict[str, object] = {}
            exec(f"from {full} import {name}", found)
            assert found[name] is not None


@pytest.mark.parametrize("owner", MEMBERS)
def test_every_member_works_or_says_what_to_use(owner, sample_sites):
    module, name = owner.split(".")
    cls = getattr(importlib.import_module(f"gee_polygons.{module}"), name)
    thing = {"Site": sample_sites[0], "SiteCollection": sample_sites, "CategoricalLayer": MAPBIOMAS}.get(
        name, ALPHA_EMBEDDINGS
    )
    for member in MEMBERS[owner].split():
        assert in_words(member), member
        if f"{name}.{member}" in INSTEAD:
            for there in (cls, thing):
                with pytest.raises(AttributeError, match=f"{name}.{member} of version 0.0.4 is gone; instead: "):
                    getattr(there, member)
        elif member not in ("feature", "geometry", "preprocess"):  # the first two need a session, the last is None
            assert getattr(thing, member) is not None


def test_nothing_else_is_listed():
    names = {f"gee_polygons.{m}".rstrip(".") + f".{n}" for m, line in NAMES.items() for n in line.split()}
    members = {f"{owner.split('.')[1]}.{n}" for owner, line in MEMBERS.items() for n in line.split()}
    assert {*SAME, *INSTEAD} <= names | members
    assert not {*SAME} & {*INSTEAD}


def test_old_names_are_the_new_things(tmp_path, sample_sites):
    path = tmp_path / "sites.geojson"
    sample_sites.to_geodataframe().to_file(path, driver="GeoJSON")
    assert SiteCollection.from_geojson(path) == load_sites(path) == SiteCollection.from_geojson(str(path), "EPSG:4326")
    assert MAPBIOMAS_LULC is MAPBIOMAS
    assert MAPBIOMAS_LULC.asset_id == MAPBIOMAS.collection_id
    assert MAPBIOMAS_LULC.class_map[15] == "Pasture"
    assert MAPBIOMAS_LULC.scale == 30


def test_class_charts_draw_areas_and_shares():
    rows = [("a", 2020, 3, 2.0), ("b", 2020, 3, 2.0), ("a", 2020, 15, 12.0), ("a", 2022, 3, 16.0), ("a", 2022, 99, 4.0)]
    table = pd.DataFrame(rows, columns=["site_id", "year", "class", "area_ha"])
    table["class_name"] = table["class"].map({**MAPBIOMAS.class_names, 99: "$none$"})
    figure, ax = plot_class_area_stacked(table, layer=MAPBIOMAS)
    figure.draw_without_rendering()
    bars = {
        c.get_label(): [(b.get_x() + b.get_width() / 2, b.get_y(), b.get_height()) for b in c] for c in ax.containers
    }
    forest, pasture, other = bars.values()  # the largest first
    assert forest == [(2020, 0, 4), (2022, 0, 16)]  # summed over the sites
    assert pasture == [(2020, 4, 12), (2022, 16, 0)]
    assert other == [(2020, 16, 0), (2022, 16, 4)]
    assert ax.containers[1][0].get_facecolor()[:3] == pytest.approx([c / 255 for c in bytes.fromhex("edde8e")])
    _, ax = plot_class_distribution(table, "mine", colors={"Pasture": "black"})
    assert [line.get_ydata().tolist() for line in ax.lines] == [[25, 80], [75, 0], [0, 20]]
    assert (ax.get_title(), ax.lines[1].get_color()) == ("mine", "black")
