"""What is asked of each site and period: an image, a reducer, and the names of what comes back.

Nothing here makes a request.

A *period* is a text, such as ``"2020"``, ``"2020-05"`` or ``"2020-05-17"``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from gee_polygons.alphaearth import ALPHA_EMBEDDINGS
from gee_polygons.errors import DataWarning, UsageError
from gee_polygons.layers import CategoricalLayer, ContinuousLayer
from gee_polygons.sources.earthengine.images import layer_collection, layer_image
from gee_polygons.zonal.zones import zone_cell

REDUCERS: Final = ("mean", "median", "min", "max", "stdDev")
VALID, COVERED = "valid", "covered"
LEAST_VALUE: Final = -2.0  # below every embedding: components lie in -1..1
CODES_SCALE: Final = 127.5  # v = sign(k) (k / 127.5)^2
NODATA_CODE: Final = -128
# zones 31-37 north of 56 degrees: Norway's 32V, and Svalbard
IRREGULAR_NORTH_OF: Final = 56.0
IRREGULAR_WEST_OF: Final = 42.0
FINEST_SCALE_M: Final = 10.0  # of the datasets here
COMPLETE: Final = 1 - 1e-6  # share of a site's pixels that tiles cover when none is missing, but for rounding

_warned_of: set[str] = set()  # layers whose results are not kept


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a request's sites of one zone lie.

    Parameters
    ----------
    box : ee.Geometry
        Around them.
    crs : str
        Their UTM zone, ``"EPSG:32722"``.
    fill : {"none", "beyond", "everywhere"}
        Where the tiles of other zones may stand in: nowhere, beyond the zone's end, or wherever the zone has none (in
        the north, where UTM's zones are irregular).
    """

    box: Any
    crs: str
    fill: str

    @classmethod
    def of(cls, geojson: Mapping[str, Any], crs: str) -> Place:
        """Look whether a box reaches beyond a zone."""
        import ee

        (west, south), _, (east, north), _ = geojson["coordinates"][0]
        zone = zone_cell(crs, near_lon=(west + east) / 2)
        fill = "none"
        if north > IRREGULAR_NORTH_OF and west < IRREGULAR_WEST_OF:
            fill = "everywhere"
        elif zone is None or west < zone[0] or south < zone[1] or east > zone[2] or north > zone[3]:
            fill = "beyond"
        return cls(box=ee.Geometry(dict(geojson), None, False), crs=crs, fill=fill)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A reduction of one image per period.

    Parameters
    ----------
    text : str
        Everything, besides geometry, period and zone, that the values depend on; empty: not known, don't keep them.
    scale_m : float
        Pixel size, in the site's UTM zone.
    bands : tuple of str
        What comes back per site and period, in this order.
    image : callable
        (period, Place) -> ee.Image with exactly these bands.
    reducer, output : str
        Name of the reducer, and of its output.
    is_complete : callable
        (values) -> whether none of the data is missing.
    until : str
        First day that doesn't count, where it lies before a period's end.
    """

    text: str
    scale_m: float
    bands: tuple[str, ...]
    image: Callable[[str, Place], Any]
    reducer: str
    is_complete: Callable[[list[Any]], bool]
    until: str = "9999-12-31"

    def is_over(self, period: str) -> bool:
        """Whether all days that count lie in the past (UTC): no more images will be taken on them."""
        return min(limits(period)[1], self.until) <= today().isoformat()

    def is_final(self, period: str, values: list[Any]) -> bool:
        """Whether values can be kept for good."""
        return self.is_complete(values) and self.is_over(period)


def today() -> date:
    """Return the day that it is (UTC)."""
    return datetime.now(UTC).date()


def has_values(values: list[Any]) -> bool:
    """Whether there is any value."""
    return any(value is not None for value in values)


def embedding_recipe(bands: Sequence[str]) -> Recipe:
    """Return the mean of embeddings, of the share of valid pixels, and of the share of pixels that tiles cover."""
    names = list(bands)

    def image(period: str, place: Place) -> Any:
        import ee

        tiles = _tiles(int(period), place)
        # 1 where there is data, 0 in the rest of the tile, masked outside
        flags = _visible(
            tiles.select([ALPHA_EMBEDDINGS.bands[0]], [VALID]).map(
                lambda tile: tile.gt(LEAST_VALUE).unmask(0).toByte().copyProperties(tile, ["UTM_ZONE"])
            ),
            place,
        )
        nowhere = ee.Image.constant(0).toByte().rename([VALID]).updateMask(0)
        flag = ee.ImageCollection([nowhere]).merge(flags).max()
        covered = flag.gte(0).unmask(0, False).rename([COVERED])
        return _values(tiles, names, place).addBands(flag.unmask(0, False)).addBands(covered)

    return Recipe(
        text=f"{ALPHA_EMBEDDINGS.collection_id} mean {','.join(names)} home zone first",
        scale_m=ALPHA_EMBEDDINGS.scale_m,
        bands=(*names, VALID, COVERED),
        image=image,
        reducer="mean",
        is_complete=lambda values: values[-1] is not None and values[-1] > COMPLETE,
    )


def embedding_codes(year: int, place: Place, bands: Sequence[str]) -> Any:
    """Return the int8 codes that a year's embeddings are stored as, -128 where there is no data."""
    values = _values(_tiles(year, place), list(bands), place)
    codes = values.signum().multiply(values.abs().sqrt()).multiply(CODES_SCALE).round()
    return codes.unmask(NODATA_CODE, False).toInt8()  # False: outside the tiles too, where pixels are else sent as 0


def _tiles(year: int, place: Place) -> Any:
    import ee

    # end-exclusive, so that the whole of 31 December counts; images start on 1 January
    return (
        ee.ImageCollection(ALPHA_EMBEDDINGS.collection_id)
        .filterDate(f"{year}-01-01", f"{year + 1}-01-01")
        .filterBounds(place.box)
    )


def _values(tiles: Any, names: list[str], place: Place) -> Any:
    """Mosaic the tiles that count, over a blank."""
    import ee

    blank = ee.Image.constant([0] * len(names)).toFloat().rename(names).updateMask(0)
    return ee.ImageCollection([blank]).merge(_visible(tiles.select(names), place)).mosaic()


def _visible(tiles: Any, place: Place) -> Any:
    """Return a zone's own tiles, and its neighbours' beneath them where the zone has ended.

    Inside the zone its own pixels count alone: another zone's, resampled, would fill a masked shore.
    """
    home = tiles.filter(_of_zone(place.crs))
    if place.fill == "none":
        return home
    if place.fill == "beyond":
        tiles = tiles.map(lambda tile: tile.updateMask(_outside(place.crs)))
    return tiles.merge(home)


def _of_zone(crs: str) -> Any:
    import ee

    number = int(crs.removeprefix("EPSG:"))
    letter = "N" if number // 100 == 326 else "S"
    # written with and without a leading zero in different places of the archive
    return ee.Filter.inList("UTM_ZONE", sorted({f"{number % 100}{letter}", f"{number % 100:02d}{letter}"}))


def _outside(crs: str) -> Any:
    """Return where a zone has ended: beyond 3 degrees from its meridian, or across the equator."""
    import ee

    number = int(crs.removeprefix("EPSG:"))
    place = ee.Image.pixelLonLat()
    middle = number % 100 * 6 - 183
    away = place.select("longitude").subtract(middle).add(540).mod(360).subtract(180).abs().gt(3)
    latitude = place.select("latitude")
    return away.Or(latitude.lt(0) if number // 100 == 326 else latitude.gte(0))


def layer_recipe(layer: ContinuousLayer, reducer: str, starts: str, ends: str) -> Recipe:
    """Return a statistic of a continuous layer, for periods cut to the days asked for.

    Parameters
    ----------
    layer : ContinuousLayer
        What.
    reducer : str
        One of `REDUCERS`.
    starts, ends : str
        First day, and first day after the last one.
    """
    if reducer not in REDUCERS:
        raise UsageError(f"unknown reducer {reducer!r}; there are {', '.join(REDUCERS)}")
    names = list(layer.bands)

    def image(period: str, place: Place) -> Any:
        import ee

        first, after = limits(period)
        if layer.composite != "mosaic":  # a mosaic's images stand for whole periods, whatever day they carry
            first, after = max(first, starts), min(after, ends)
        blank = ee.Image.constant([0] * len(names)).toFloat().rename(names).updateMask(0)
        images = ee.ImageCollection([blank]).merge(layer_collection(layer, place.box, first, after))
        # a day's images are one overpass, cut into tiles: they are laid over one another, not averaged
        return images.mosaic() if len(period) == len("2020-05-17") else getattr(images, layer.composite)()

    expression = _expression(layer)
    return Recipe(
        text=expression and f"{expression} {reducer} {starts} {ends}",
        scale_m=layer.scale_m,
        bands=tuple(names),
        image=image,
        reducer=reducer,
        is_complete=has_values,
        **({"until": ends} if layer.composite != "mosaic" else {}),
    )


def histogram_recipe(layer: CategoricalLayer) -> Recipe:
    """Return how much of a site each class of a year covers, in pixels."""

    def image(period: str, place: Place) -> Any:
        return layer_image(layer, place.box, int(period))

    expression = _expression(layer)
    return Recipe(
        text=expression and f"{expression} {layer.band} histogram",
        # coarse pixels lie on another grid than UTM's: sampled finely, their areas come out right to a few per cent of
        # one of them, however the two grids lie to each other
        scale_m=min(layer.scale_m, FINEST_SCALE_M),
        bands=(layer.band_name,),
        image=image,
        reducer="frequencyHistogram",
        is_complete=lambda values: bool(values[0]),
    )


def limits(period: str) -> tuple[str, str]:
    """Return the first day of a period, and the first day after it.

    Examples
    --------
    >>> limits("2020"), limits("2020-12"), limits("2020-02-28")
    (('2020-01-01', '2021-01-01'), ('2020-12-01', '2021-01-01'), ('2020-02-28', '2020-02-29'))
    """
    parts = [int(part) for part in period.split("-")]
    year, month, day = (*parts, 1, 1)[:3]
    first = date(year, month, day)
    if len(parts) == 1:
        after = date(year + 1, 1, 1)
    elif len(parts) == 2:
        after = date(year + month // 12, month % 12 + 1, 1)
    else:
        after = first + timedelta(days=1)
    return first.isoformat(), after.isoformat()


def _expression(layer: ContinuousLayer | CategoricalLayer) -> str:
    """Return the Earth Engine expression of a layer's image; empty, with a warning, where it differs each time.

    It holds what `prepare` does, whatever kind of callable that is and whatever variables it reads.
    """
    from ee import serializer

    first, second = (str(serializer.toJSON(layer_image(layer, None, layer.first_year))) for _ in range(2))
    if first == second:
        return first
    if layer.name not in _warned_of:
        _warned_of.add(layer.name)
        warnings.warn(
            f"results of layer {layer.name!r} are not kept in the cache: its prepare function makes another expression "
            "each time it is called; leave out what changes (the time, random numbers) to have them kept",
            DataWarning,
            stacklevel=2,
        )
    return ""
