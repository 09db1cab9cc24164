"""Describes reductions: an image for each period, the reducer, and the bands of the result. No request is made.

A *period* is a text: a year, month or day, such as ``"2020"``, ``"2020-05"`` or ``"2020-05-17"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS, EMBEDDING_YEARS, NODATA
from gee_polygons.errors import UsageError, warn_data
from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.sources.earthengine.cache import digest
from gee_polygons.sources.earthengine.images import blank_image, layer_collection, layer_image, limits
from gee_polygons.zonal.zones import zone_cell

REDUCERS: Final = ("mean", "median", "min", "max", "stdDev")
VALID, COVERED = "valid", "covered"
LEAST_VALUE: Final = -2.0  # below every embedding: components lie in -1..1
CODES_SCALE: Final = 127.5  # v = sign(k) (k / 127.5)^2
# zones 31-37 north of 56 degrees: Norway's 32V, and Svalbard
IRREGULAR_NORTH_OF: Final = 56.0
IRREGULAR_WEST_OF: Final = 42.0
FINEST_SCALE_M: Final = 10.0  # of the datasets here
# Images are published days after they were taken (Sentinel-2: mostly within two), a few of them weeks after
PUBLICATION_DELAY: Final = timedelta(days=30)
COMPLETE: Final = 1 - 1e-6  # share of a site's pixels that tiles cover when none is missing, but for rounding

_warned_of: set[str] = set()  # layers whose results are not kept


@dataclass(frozen=True, kw_only=True)
class ZoneBox:
    """A box around sites of one UTM zone.

    Parameters
    ----------
    box : ee.Geometry
        The box.
    crs : str
        The zone, ``"EPSG:32722"``.
    other_zones : {"none", "beyond", "everywhere"}
        Where tiles of other zones are used: nowhere, outside the zone, or wherever the zone has none (in the north,
        where UTM's zones are irregular).
    """

    box: Any
    crs: str
    other_zones: str

    @classmethod
    def of(cls, geojson: Mapping[str, Any], crs: str) -> ZoneBox:
        """Find out whether a box reaches beyond its zone."""
        import ee

        (west, south), _, (east, north), _ = geojson["coordinates"][0]
        zone = zone_cell(crs, near_lon=(west + east) / 2)
        other_zones = "none"
        if north > IRREGULAR_NORTH_OF and west < IRREGULAR_WEST_OF:
            other_zones = "everywhere"
        elif zone is None or west < zone[0] or south < zone[1] or east > zone[2] or north > zone[3]:
            other_zones = "beyond"
        return cls(box=ee.Geometry(dict(geojson), None, False), crs=crs, other_zones=other_zones)

    @property
    def zone(self) -> tuple[int, bool]:
        """The zone's number, and whether it is north of the equator."""
        code = int(self.crs.removeprefix("EPSG:"))
        return code % 100, code // 100 == 326


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """A reduction of one image per period over sites.

    Parameters
    ----------
    text : str
        Identifies everything that the values depend on, besides geometry, period and zone. Empty: nothing can, so
        values must not be cached.
    scale_m : float
        Pixel size, in the site's UTM zone.
    bands : tuple of str
        Values of a site and period, in this order.
    image : callable
        (period, ZoneBox) -> ee.Image with exactly these bands.
    reducer : str
        Name of the reducer.
    is_complete : callable
        (values) -> whether none of the data is missing.
    until : str
        End of the requested dates (exclusive), which may lie before the end of a period.
    """

    text: str
    scale_m: float
    bands: tuple[str, ...]
    image: Callable[[str, ZoneBox], Any]
    reducer: str
    is_complete: Callable[[list[Any]], bool]
    until: str = "9999-12-31"

    def reduce_regions(
        self, image: Any, names: list[str], features: list[Any], place: ZoneBox, scale_m: float, tile_scale: int
    ) -> Any:
        """Return an `ee.FeatureCollection` whose features have the reduced bands as properties of these names."""
        import ee

        reducer = getattr(ee.Reducer, self.reducer)()
        if len(names) == 1:  # of a single band the property is else named after the reducer's output
            reducer = reducer.setOutputs(names)
        return image.rename(names).reduceRegions(
            collection=ee.FeatureCollection(features),
            reducer=reducer,
            scale=scale_m,
            crs=place.crs,
            tileScale=tile_scale,
        )

    def is_over(self, period: str) -> bool:
        """Whether all its requested days lie so far in the past (UTC) that no more images will be published."""
        return min(limits(period)[1], self.until) <= (today() - PUBLICATION_DELAY).isoformat()

    def is_final(self, period: str, values: list[Any]) -> bool:
        """Whether values will not change any more."""
        return self.is_complete(values) and self.is_over(period)


def today() -> date:
    """Return today's date (UTC)."""
    return datetime.now(UTC).date()


def possible_years() -> range:
    """Return the years that embeddings may exist for by now, also those published since this version was made."""
    return range(EMBEDDING_YEARS.start, max(EMBEDDING_YEARS.stop, today().year + 1))


def has_values(values: list[Any]) -> bool:
    """Whether there is any value."""
    return any(value is not None for value in values)


def embedding_reduction(bands: Sequence[str]) -> Reduction:
    """Return the mean of embeddings, the share of valid pixels, and the share of pixels that tiles cover."""
    names = list(bands)

    def image(period: str, place: ZoneBox) -> Any:
        import ee

        tiles = _tiles(int(period), place)
        # 1 where there is data, 0 in the rest of the tile, masked outside
        flags = tiles.select([ALPHA_EMBEDDINGS.bands[0]], [VALID]).map(
            lambda tile: tile.gt(LEAST_VALUE).unmask(0).toByte().copyProperties(tile, ["UTM_ZONE"])
        )
        outside = ee.Image.constant(0).toByte().rename([VALID]).updateMask(0)
        flag = ee.ImageCollection([outside]).merge(_select_zones(flags, place)).max()
        covered = flag.gte(0).unmask(0, False).rename([COVERED])
        return _mosaic(tiles, names, place).addBands(flag.unmask(0, False)).addBands(covered)

    return Reduction(
        text=f"{ALPHA_EMBEDDINGS.collection_id} mean {','.join(names)} home zone first",
        scale_m=ALPHA_EMBEDDINGS.scale_m,
        bands=(*names, VALID, COVERED),
        image=image,
        reducer="mean",
        is_complete=lambda values: values[-1] is not None and values[-1] > COMPLETE,
    )


def embedding_codes(year: int, place: ZoneBox, bands: Sequence[str]) -> Any:
    """Return an image of the int8 codes of a year's embeddings, -128 where there is no data."""
    values = _mosaic(_tiles(year, place), list(bands), place)
    codes = values.signum().multiply(values.abs().sqrt()).multiply(CODES_SCALE).round()
    return codes.unmask(NODATA, False).toInt8()  # False: outside the tiles too, where pixels are else sent as 0


def _tiles(year: int, place: ZoneBox) -> Any:
    import ee

    # end-exclusive, so that the whole of 31 December counts; images start on 1 January
    return (
        ee.ImageCollection(ALPHA_EMBEDDINGS.collection_id)
        .filterDate(f"{year}-01-01", f"{year + 1}-01-01")
        .filterBounds(place.box)
    )


def _mosaic(tiles: Any, names: list[str], place: ZoneBox) -> Any:
    import ee

    return ee.ImageCollection([blank_image(names)]).merge(_select_zones(tiles.select(names), place)).mosaic()


def _select_zones(tiles: Any, place: ZoneBox) -> Any:
    """Return the tiles of a zone and, beneath them, tiles of other zones where the zone has none.

    Inside the zone only its own pixels are used: resampled ones of another zone would fill a masked shore.
    """
    import ee

    number, north = place.zone
    letter = "N" if north else "S"
    # written with and without a leading zero in different places of the archive
    names = sorted({f"{number}{letter}", f"{number:02d}{letter}"})
    home = tiles.filter(ee.Filter.inList("UTM_ZONE", names))
    if place.other_zones == "none":
        return home
    if place.other_zones == "beyond":
        tiles = tiles.map(lambda tile: tile.updateMask(_outside(place)))
    return tiles.merge(home)


def _outside(place: ZoneBox) -> Any:
    """Return a mask of the pixels outside a zone: beyond 3 degrees from its meridian, or across the equator."""
    import ee

    number, north = place.zone
    lon_lat = ee.Image.pixelLonLat()
    meridian = number * 6 - 183
    away = lon_lat.select("longitude").subtract(meridian).add(540).mod(360).subtract(180).abs().gt(3)
    latitude = lon_lat.select("latitude")
    return away.Or(latitude.lt(0) if north else latitude.gte(0))


def layer_reduction(layer: ContinuousLayer, reducer: str, start: str, end: str) -> Reduction:
    """Return a statistic of a continuous layer; its composites use images of the requested dates only.

    Parameters
    ----------
    layer : ContinuousLayer
        The layer.
    reducer : str
        One of `REDUCERS`.
    start, end : str
        The requested dates; the end is exclusive.
    """
    if reducer not in REDUCERS:
        raise UsageError(f"unknown reducer {reducer!r}; there are {', '.join(REDUCERS)}")
    # the images of a mosaic stand for whole periods, whatever day they are dated
    first_day, until = ("", "9999-12-31") if layer.composite == "mosaic" else (start, end)

    def image(period: str, place: ZoneBox) -> Any:
        first, after = limits(period)
        images = layer_collection(layer, place.box, max(first, first_day), min(after, until))
        # the images of a day are tiles of one overpass: they are laid over one another, not averaged
        return images.mosaic() if len(period) == len("2020-05-17") else getattr(images, layer.composite)()

    expression = _expression(layer)
    return Reduction(
        text=expression and f"{expression} {reducer} {start} {end}",
        scale_m=layer.scale_m,
        bands=layer.bands,
        image=image,
        reducer=reducer,
        is_complete=has_values,
        until=until,
    )


def histogram_reduction(layer: CategoricalLayer) -> Reduction:
    """Return the histogram of a layer's classes, in pixels."""

    def image(period: str, place: ZoneBox) -> Any:
        return layer_image(layer, place.box, int(period))

    expression = _expression(layer)
    return Reduction(
        text=expression and f"{expression} {layer.band} histogram",
        # coarse pixels lie on another grid than UTM's: sampled finely, areas are right to a few per cent of a pixel
        scale_m=min(layer.scale_m, FINEST_SCALE_M),
        bands=(layer.band_name,),
        image=image,
        reducer="frequencyHistogram",
        is_complete=lambda values: bool(values[0]),
    )


def _expression(layer: ContinuousLayer | CategoricalLayer) -> str:
    """Return a digest of the expression of a layer's image; empty, with a warning, if it differs from call to call.

    The expression contains what `prepare` does, whatever kind of callable that is and whatever variables it reads.
    """
    from ee import serializer

    first, second = (str(serializer.toJSON(layer_image(layer, None, layer.first_year))) for _ in range(2))
    if first == second:
        return digest(first).hex()
    if layer.name not in _warned_of:
        _warned_of.add(layer.name)
        warn_data(
            f"results of layer {layer.name!r} are not kept in the cache: its prepare function makes another expression "
            "each time it is called; leave out what changes (the time, random numbers) to have them kept"
        )
    return ""
