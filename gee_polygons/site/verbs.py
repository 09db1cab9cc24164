"""Methods of `Site` and `SiteCollection` that hand over to other parts of the package.

Sites are plain data and know nothing of sources, Earth Engine or maps. This module is the only one that imports from
parts built on top of sites, and it does so inside the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd

from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.site.geodesy import ee_geojson, ee_properties

if TYPE_CHECKING:
    from gee_polygons.site.collection import SiteCollection


class Extractable:
    """Extraction methods shared by `Site` and `SiteCollection`."""

    __slots__ = ()

    def extract_continuous(
        self,
        layer: ContinuousLayer,
        *,
        start_date: str | int,
        end_date: str | int,
        reducer: str = "mean",
        frequency: str = "yearly",
        source: Any = None,
        on_error: str = "raise",
        keep: bool | Sequence[str] = False,
        progress: bool | Callable[..., Any] = False,
    ) -> pd.DataFrame:
        """Extract a layer, all sites at once: see `gee_polygons.extract.extract_continuous`.

        Parameters
        ----------
        layer : ContinuousLayer
            Such as `gee_polygons.datasets.alpha_embeddings.ALPHA_EMBEDDINGS`.
        start_date, end_date : str
            ``"2018-01-01"`` and ``"2024-12-31"`` for the years 2018 to 2024; both days count.
        reducer : {"mean", "median", "min", "max", "stdDev"}
            Of a site's pixels.
        frequency : {"yearly", "monthly", "all"}
            One row per year, month, or date with an image; embeddings have no months.
        source : str, path or Source, optional
            Where pixels come from: see `gee_polygons.open_source`.
        on_error : {"raise", "collect"}
            What failed raises, or is listed in ``attrs["errors"]``.
        keep : bool or sequence of str
            Properties of the sites to put into the table, or True for all.
        progress : bool or callable
            Show a bar, or be told.

        Returns
        -------
        DataFrame
            ``site_id``, ``year`` and one column per band; years without data have no row.
        """
        from gee_polygons.extract import extract_continuous

        return extract_continuous(
            self, layer, start_date=start_date, end_date=end_date, reducer=reducer, frequency=frequency, source=source,
            on_error=on_error, keep=keep, progress=progress,
        )  # fmt: skip

    def extract_categorical(
        self,
        layer: CategoricalLayer,
        years: Iterable[int] | None = None,
        *,
        start_date: str | int | None = None,
        end_date: str | int | None = None,
        source: Any = None,
        on_error: str = "raise",
        keep: bool | Sequence[str] = False,
        progress: bool | Callable[..., Any] = False,
    ) -> pd.DataFrame:
        """Measure how much of each site each class covers: see `gee_polygons.extract.extract_categorical`."""
        from gee_polygons.extract import extract_categorical

        return extract_categorical(
            self, layer, years, start_date=start_date, end_date=end_date, source=source, on_error=on_error,
            keep=keep, progress=progress,
        )  # fmt: skip

    def show(
        self, image: Any = None, vis_params: Mapping[str, Any] | None = None, *, basemap: bool | str = False
    ) -> Any:
        """Return an interactive map of the site or sites. Needs lonboard: ``pip install "gee_polygons[map]"``.

        Parameters
        ----------
        image : ee.Image, optional
            Drawn beneath the sites, in tiles from Earth Engine.
        vis_params : mapping, optional
            How it is drawn, as in `gee_polygons.visualize.render_image`.
        basemap : bool or str
            Tiles to draw below everything: see `gee_polygons.visualize.plot_sites`. By default lonboard's own map.

        Returns
        -------
        lonboard.Map

        Raises
        ------
        DependencyError
            If lonboard isn't installed.
        """
        from gee_polygons.site.inputs import as_sites
        from gee_polygons.visualize.interactive import interactive_map

        return interactive_map(as_sites(self).to_geodataframe(), image, vis_params, basemap)


class SiteVerbs(Extractable):
    """Methods of `Site` that need Earth Engine or a map."""

    polygon: Any
    site_id: int | str
    start_year: int | None
    properties: Mapping[str, Any]

    @cached_property
    def geometry(self) -> Any:
        """The polygon as an `ee.Geometry`; built on first use, without a request.

        Rings are open and coordinates have seven decimals (1 cm), which nearly halves what is sent. Edges are straight
        in longitude and latitude (``geodesic=False``), as everywhere in this package.

        Raises
        ------
        EarthEngineError
            If the Earth Engine client is not initialised.
        """
        from gee_polygons.sources.earthengine.session import earth_engine

        return earth_engine().Geometry(ee_geojson(self.polygon), geodesic=False)

    @cached_property
    def feature(self) -> Any:
        """The site as an `ee.Feature`, with ``site_id``, ``start_year`` and properties; built without a request.

        Properties that are missing or that Earth Engine has no type for are left out.

        Raises
        ------
        EarthEngineError
            If the Earth Engine client is not initialised.
        """
        from gee_polygons.sources.earthengine.session import earth_engine

        ee = earth_engine()
        own = {"site_id": self.site_id, "start_year": self.start_year}
        return ee.Feature(self.geometry, ee_properties({**self.properties, **own}))


class CollectionVerbs(Extractable):
    """Methods of `SiteCollection` that need Earth Engine, a map or a file."""

    __slots__ = ()

    @classmethod
    def from_geojson(cls, path: str | PathLike[str], source_crs: Any = None) -> SiteCollection:
        """Read sites from a file: `load_sites` under its name of version 0.0.4."""
        from gee_polygons.site.inputs import load_sites

        return load_sites(path, crs=source_crs)

    def export_continuous(
        self,
        layer: ContinuousLayer,
        *,
        start_date: str | int,
        end_date: str | int,
        reducer: str = "mean",
        frequency: str = "yearly",
        drive_folder: str | None = None,
        bucket: str | None = None,
        prefix: str | None = None,
    ) -> Any:
        """Start batch tasks that write a layer's table to Drive or Cloud Storage, for jobs of many thousand sites.

        Parameters
        ----------
        layer, start_date, end_date, reducer, frequency
            See `extract_continuous`. Of embeddings, the yearly mean.
        drive_folder, bucket : str
            One of them: a folder of your Drive, or a bucket of Cloud Storage.
        prefix : str, optional
            Of the files' names, with ``/`` for folders in a bucket. Default: the layer's name.

        Returns
        -------
        gee_polygons.sources.earthengine.exports.Exports
            ``status()``, ``wait()``, ``cancel()``, ``ids``. The same call again takes over what is there already.
            `gee_polygons.sources.earthengine.exports.read_exports` gathers the files into the table of
            `extract_continuous`.
        """
        from gee_polygons.site.inputs import as_sites
        from gee_polygons.sources.earthengine.exports import start_exports

        return start_exports(
            as_sites(self), layer, start_date=start_date, end_date=end_date, reducer=reducer, frequency=frequency,
            drive_folder=drive_folder, bucket=bucket, prefix=prefix,
        )  # fmt: skip

    def export_categorical(
        self,
        layer: CategoricalLayer,
        *,
        start_date: str | int,
        end_date: str | int,
        drive_folder: str | None = None,
        bucket: str | None = None,
        prefix: str | None = None,
    ) -> Any:
        """Start batch tasks that write the areas of classes: see `export_continuous`."""
        from gee_polygons.site.inputs import as_sites
        from gee_polygons.sources.earthengine.exports import start_exports

        return start_exports(
            as_sites(self), layer, start_date=start_date, end_date=end_date, reducer=None, frequency="yearly",
            drive_folder=drive_folder, bucket=bucket, prefix=prefix,
        )  # fmt: skip
