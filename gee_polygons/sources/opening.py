"""Opens a source of embeddings from a name, a path or a URL."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from gee_polygons.alphaearth import SOURCE_COOP_INDEX
from gee_polygons.errors import ReadError, UsageError
from gee_polygons.network.places import has_suffix
from gee_polygons.network.request import NETWORK, Network, fetch_whole
from gee_polygons.reduction.plan import Source

SOURCE_SETTING: Final = "GEE_POLYGONS_SOURCE"
MIRROR_SETTING: Final = "GEE_POLYGONS_MIRROR"


def open_source(
    spec: str | os.PathLike[str] | Source | None = None, *, year: int | None = None, network: Network | None = None
) -> Source:
    """Open a source of embeddings.

    Parameters
    ----------
    spec : str, path or Source, optional
        ``"sample"`` (the synthetic archive, built on first use), ``"source-coop"`` (the open archive, no account),
        ``"mosaic"`` (the open mosaic in Zarr, no account), ``"earthengine"``, or a path or URL: an archive's index or
        folder, a Zarr store, or a single GeoTIFF or NumPy file. ``"mosaic:URL"`` says that a URL is a Zarr store.
        Default: the setting ``GEE_POLYGONS_SOURCE``, else Earth Engine where you have initialised it, else
        ``"source-coop"``.
    year : int, optional
        Year of a single raster, or a mosaic of one year, that doesn't state it.
    network : Network, optional
        Of an archive: how hard to try, how much to ask for at once, which mirror to read. Default: the usual, with
        the mirrors in the setting ``GEE_POLYGONS_MIRROR``.

    Returns
    -------
    Source

    Raises
    ------
    UsageError
        For an unknown name.
    InputFileError
        For a path that isn't there, or isn't any of these.

    Examples
    --------
    >>> open_source("sample").name
    'sample'
    """
    if spec is None:
        spec = os.environ.get(SOURCE_SETTING) or _default_source()
    if hasattr(spec, "as_source"):  # a collection
        spec = spec.as_source()
    if isinstance(spec, Source):
        return spec
    if not isinstance(spec, (str, os.PathLike)):
        raise UsageError(f"a source is a name, a path or a Source, found {type(spec).__name__}")
    text = os.fspath(spec)
    if text in ("auto", "all"):
        raise UsageError(f"{text!r} depends on sites and years: give it to extract_embeddings or `gee-polygons plan`")
    if text == "sample":
        from gee_polygons.sources.cog.source import CogSource
        from gee_polygons.sources.sample.archive import sample_archive_path

        return CogSource(sample_archive_path(), name="sample")
    if text == "source-coop":
        from gee_polygons.network.places import rewrite
        from gee_polygons.sources.cog.source import CogSource

        how = network or network_by_settings()  # nothing is read but the index's footer
        return CogSource(rewrite(SOURCE_COOP_INDEX, how.url_rewrite), name="source-coop", network=how)
    if text == "earthengine":
        from gee_polygons.sources.earthengine.source import EarthEngineSource

        return EarthEngineSource()
    if text == "mosaic" or text.startswith("mosaic:") or _is_zarr(text):
        from gee_polygons.sources.mosaic.source import MOSAIC_URL, MosaicSource

        given = text.removeprefix("mosaic:") if text.startswith("mosaic") else text
        place = MOSAIC_URL if given in ("", "mosaic") else given
        return MosaicSource(place, network=network or network_by_settings(), year=year)
    if text.lower().endswith(".npy") and (listed := _listed_file(text)) is not None:
        return listed
    if has_suffix(text, ".tif", ".tiff", ".vrt", ".npy", ".npz"):
        from gee_polygons.sources.raster import RasterSource

        return RasterSource(text, year=year)
    if "://" in text or "/" in text or os.path.exists(text) or text.endswith((".parquet", ".csv", ".gpkg")):  # noqa: PTH110
        from gee_polygons.sources.cog.source import CogSource

        return CogSource(text, network=network or network_by_settings())
    raise UsageError(
        f"unknown source {text!r}; use 'sample', 'source-coop', 'mosaic', 'earthengine', or the path of an archive"
        " or raster"
    )


def _listed_file(path: str) -> Source | None:
    """Open a NumPy file that the index beside it places, as `download` writes them; None if none does."""
    from gee_polygons.sources.cog.columns import canonical
    from gee_polygons.sources.cog.index import ArchiveIndex
    from gee_polygons.sources.cog.records import read_records
    from gee_polygons.sources.cog.source import INDEX_NAME, CogSource

    index = Path(path).with_name(INDEX_NAME)
    if not index.is_file():
        return None
    table = canonical(read_records(str(index)), place=str(index))
    table = table.filter([name == Path(path).name for name in table["path"].to_pylist()])
    return CogSource(ArchiveIndex.of(table, str(index))) if len(table) else None


def _is_zarr(place: str) -> bool:
    """Whether a place is a Zarr store: by its name, else by what is there (one request, for the URL of a folder)."""
    folder = place.rstrip("/").removesuffix("/zarr.json")
    if folder != place.rstrip("/") or folder.lower().endswith(".zarr"):
        return True
    if "://" not in folder:
        return os.path.isfile(os.path.join(folder, "zarr.json"))  # noqa: PTH113, PTH118
    if "." in folder.rpartition("/")[2]:
        return False  # a file
    from gee_polygons.network.request import Network

    try:
        fetch_whole(f"{folder}/zarr.json", Network(give_up_after_s=5))
    except ReadError:
        return False  # whatever it is, reading it will say
    return True


def network_by_settings() -> Network:
    """Return the usual network, with the mirrors that the setting ``GEE_POLYGONS_MIRROR`` names: FROM=TO FROM=TO..."""
    pairs = [pair.partition("=") for pair in os.environ.get(MIRROR_SETTING, "").split()]
    if any(not old or not new for old, _, new in pairs):
        raise UsageError(f"{MIRROR_SETTING} holds pairs FROM=TO of URL prefixes, with blanks between them; correct it")
    return replace(NETWORK, url_rewrite={old: new for old, _, new in pairs}) if pairs else NETWORK


def _default_source() -> str:
    """Earth Engine where the user has initialised it; nothing here imports or initialises it."""
    data = sys.modules.get("ee.data")
    is_initialised = getattr(data, "is_initialized", None)
    return "earthengine" if is_initialised is not None and is_initialised() else "source-coop"
