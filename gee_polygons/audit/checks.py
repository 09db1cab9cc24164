"""The checks of an audit: what each finding is called, what it says, and how to repair the table."""

from __future__ import annotations

from typing import Final


def _parsed(text: str) -> dict[str, tuple[str, str]]:
    """Return titles and remedies by the code of the finding; places in braces are filled in from the table."""
    lines = text.strip().splitlines()
    heads = [line.split(": ", 1) for line in lines[::2]]
    return {code: (title, remedy.strip()) for (code, title), remedy in zip(heads, lines[1::2], strict=True)}


# the values are wrong
ERRORS: Final = _parsed("""
nodata_as_value: rows filled with one value ({values}): nodata kept as if it were data
    set these rows to NaN; mask code -128 (and the exporter's fill value) before anything else
nodata_averaged: nodata was averaged in: {how}
    mask code -128 before de-quantising and averaging; extract again
raw_codes: values in code units: {how}
    de-quantise each pixel, v = sign(k) (k / 127.5)^2, mask -128, then average; means of codes: extract again
linear_dequantisation: codes were divided by {divisor} instead of de-quantised
    pixels: v = sign(x) (x * divisor / 127.5)^2; polygons (cosine to the right vector 0.97..0.99): extract again
unknown_scale: values are neither vectors nor codes
    find the factor (a sum instead of a mean? an integer encoding?) and divide by it
longer_than_one: vectors longer than 1, which no mean of unit vectors is (Rbar > 1)
    look for weights that don't add up to 1, nodata averaged in, or a wrong de-quantisation; extract again
sign_lost: no component is negative: the sign was lost when squaring
    v = sign(k) (k / 127.5)^2, with the sign; extract again
not_unit: vectors in columns named as unit vectors have other lengths: they are means, shorter than 1
    divide each by its length before cosines, dot products and nearest neighbours
partial_rows: rows in which some bands are missing or infinite: a pixel has all 64 or none
    treat the whole row as missing; look for a read that failed, a mask applied band by band, or a division by 0
rbar_differs: Rbar is not the length of the row's vector
    the vector or Rbar was changed alone (another reducer, another year, a wrong join)
valid_fraction: valid_fraction outside 0..1: pixels counted twice, or areas of two grids mixed
    count each piece of ground once: one grid per polygon, tiles mosaicked before reducing
duplicate_rows: several rows for one site{year}
    keep one row for each; look for tiles that were reduced one by one, or parts appended twice
same_in_two_years: a site has exactly the same vector in two years
    look at the filter of years: the collection has no 'year' property, and the end of filterDate is exclusive
band_order: {disorder}
    rename the columns (sort bands by number, not by name), multiply bands of the other sign by -1, compare again
band_sign: {disorder}
    multiply these bands by -1 and compare again
zero_bands: bands are exactly 0 in every row, or in many bands of a row
    look for a band that wasn't read, or an array that was made with zeros and not filled; extract again
not_of_unit_pixels: mean^2 + std^2, summed over the bands, isn't 1, as it is for pixels of length 1
    look for codes averaged before they were de-quantised, or nodata averaged in as 0; extract again
years_before_data: rows of years before {first}, the first one with data
    look at how years were written: by a period's start, its end, or counted from another year
years_shifted: years of some sites are {disorder}: they change as the other sites do in the next or previous year
    look at how the years of these sites were written (a period's end instead of its start, another file's order)
sites_swapped: sites continue each other's series
    look at the join and the order of sites in the year where it begins
rows_mixed_up: rows hold the vector of another site or year
    look at the join, the order of sites, and the filter of years (the end of filterDate is exclusive)
length_differs: rows have the direction of the reference's, but another length (Rbar)
    look for nodata averaged in as 0, a sum divided by the whole area instead of the valid one, or a factor
mean_of_codes: codes were averaged, then de-quantised: every component is too small
    de-quantise each pixel, then average: extract again
""")

# something is missing, lost or unlikely
WARNINGS: Final = _parsed("""
implausibly_short: vectors shorter than {shortest}: hardly any land is so mixed (1 km2: 0.8)
    look for values de-quantised twice, divided by an area, or a polygon far too large
shorter_than_usual: vectors have the direction of the site's other years, but are far shorter
    look for nodata averaged in as 0, a sum divided by the whole area, or codes averaged before de-quantising
renormalised: vectors were scaled to length 1: how mixed a polygon is, is lost{kept}
    {remedy}
rounded: values are rounded to {to}
    store float32 or float64; to save space store int8 codes of pixels, not rounded means
missing_years: years are missing between {first} and {last}
    keep a row with NaN and a status for each, so that a gap isn't taken for a failure, nor two years' change for one
same_for_many_sites: many sites have exactly the same vector in a year
    reduce at 10 m in the UTM zone's CRS (a mosaic's default is one degree); right if the sites lie in one pixel
year_apart: in {years} all sites change at once, far more than in other years
    compare this year's extraction with the others': band order, de-quantisation, version, footprint
jump: changes between years that land doesn't make
    look at pictures of these rows: a wrong place, year or band order, or much nodata; else the change is real
differs_from_reference: rows differ from the reference for no known reason
    look at weights (pixel centres instead of shares), scale (10 m), overlapping tiles, footprints
rows_missing: the reference has rows that the table lacks
    extract them, or keep a row with NaN and a status where there is no data
""")
