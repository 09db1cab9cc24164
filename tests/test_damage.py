"""Damaged bytes inside a tile: named, or harmless.

A hole of 64 zeroed bytes is punched into compressed blocks at many places. With on_damage="raise" each case must end in
an error that names tile, block and band; or in the numbers of the undamaged tile; or in a difference that can't be
known for one, because the frames carry no checksum: each pixel that differs still has the codes of some unit vector, or
a length within 0.012 of 1. That last is checked here by decoding the damaged block independently.
"""

import re
import shutil
import warnings
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import rasterio
import shapely
from click.testing import CliRunner
from oracles import (
    SHARED,
    archive,
    can_be_unit,
    index_row,
    on_grid,
    one_line,
    open_tile,
    same,
    sites,
    small_grid,
    unit_codes,
    write_gdal,
    write_index,
)
from rangeserver import serve

from gee_polygons import extract_embeddings
from gee_polygons.alphaearth import BANDS
from gee_polygons.cli.main import main
from gee_polygons.embeddings.quantization import codes_to_vectors
from gee_polygons.errors import DataWarning, ReadError, UsageError
from gee_polygons.network import ranges as _fetch
from gee_polygons.network.request import Network
from gee_polygons.sources.cog import CogSource
from gee_polygons.sources.cog.writing import write_tile
from gee_polygons.sources.raster import RasterSource
from gee_polygons.sources.sample.landscape import Landscape

SHAPE, BLOCK = (192, 192), 64
GRID = small_grid(SHAPE)
LIMIT = 0.012
HOLES = 60


@pytest.fixture(scope="module")
def codes():
    """Pixels with the statistics of real ones, so that they compress, and break, like those."""
    land = Landscape(lon=-48.1, lat=-22.6, seed=5)
    return land.codes("EPSG:32722", GRID.window, 2024)


@pytest.fixture(scope="module")
def tile(tmp_path_factory, codes):
    return write_tile(tmp_path_factory.mktemp("sound") / "tile.tiff", GRID, codes, block=BLOCK)


@pytest.fixture(scope="module")
def frame():
    """Sites that together touch every pixel, one or more a block."""
    squares = [shapely.box(x, y, x + 48, y + 48) for y in range(0, 192, 48) for x in range(0, 192, 48)]
    return sites(on_grid(squares, small_grid(SHAPE, south_up=False)))


@pytest.fixture(scope="module")
def sound(tile, frame):
    return extract_embeddings(frame, source=archive(tile.parent, [(tile, GRID, 2024)]))


def punched(path, folder, start, length=64):
    """A copy of a tile with a hole of zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "tile.tiff"
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    copy.write_bytes(data)
    return copy


def block_place(tile, band, row, col):
    header = open_tile(str(tile), 2024)
    return int(header.offsets[band, row, col]), int(header.lengths[band, row, col])


def decoded(tile, band, row, col):
    """The codes of one block and band, decoded here; None where that fails."""
    first, length = block_place(tile, band, row, col)
    try:
        data = imagecodecs.zstd_decode(tile.read_bytes()[first : first + length])
    except RuntimeError:
        return None
    return np.frombuffer(data, np.int8).reshape(BLOCK, BLOCK) if len(data) == BLOCK**2 else None


def named_in(message):
    """(tile, row, column, band or None) of an error message."""
    found = re.search(r"(\S+): block \(row (\d+), column (\d+)\), (?:band (A\d\d)|all bands)", message)
    assert found, message
    return found[1], int(found[2]), int(found[3]), found[4]


def holes(seed=0):
    """(band, block row, block column, position in the block 0..1) of the holes, spread over all of them."""
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(64)), int(rng.integers(3)), int(rng.integers(3)), (i + rng.random()) / HOLES)
            for i in range(HOLES)]  # fmt: skip


def outcome(tile, frame, sound, hole, folder):
    """Punch one hole; check everything promised; return ("codec" | "length" | "unseen" | "same", band named right)."""
    band, row, col, where = hole
    first, length = block_place(tile, band, row, col)
    copy = punched(tile, folder, first + int(where * (length - 64)))
    source = archive(folder, [(copy, GRID, 2024)])
    true, broken = decoded(tile, band, row, col), decoded(copy, band, row, col)
    try:
        table = extract_embeddings(frame, source=source, on_damage="raise")
    except ReadError as error:
        message = str(error)
        assert one_line(message)
        assert "damaged" in message
        named = named_in(message)
        assert (error.year, error.url, *named[:3]) == (2024, str(copy), str(copy), row, col)  # noqa: PT017 - either way
        if broken is None:
            assert named[3] == BANDS[band]  # the codec knows
            return "codec", True
        assert "(most likely)" in message
        return "length", named[3] == BANDS[band]
    assert broken is not None, "a block that can't be decoded went unnoticed"
    if np.array_equal(broken, true):
        same(table, sound)
        return "same", True
    with rasterio.open(copy) as file:
        stored = file.read(window=rasterio.windows.Window(col * BLOCK, row * BLOCK, BLOCK, BLOCK))
    changed = broken != true
    assert np.array_equal(stored[band], broken)
    lengths = np.linalg.norm(codes_to_vectors(stored, np.float64), axis=0)
    assert all(abs(lengths[i, j] - 1) <= LIMIT or can_be_unit(stored[:, i, j]) for i, j in np.argwhere(changed))
    moved = (table[list(BANDS)] - sound[list(BANDS)]).abs().to_numpy()
    assert np.all(moved[:, [i for i in range(64) if i != band]] == 0)
    return "unseen", True


@pytest.fixture(scope="module")
def outcomes(tile, frame, sound, tmp_path_factory):
    """Outcomes of all holes, in order."""
    folder = tmp_path_factory.mktemp("holes")
    return [outcome(tile, frame, sound, hole, folder / str(i)) for i, hole in enumerate(holes())]


def test_no_hole_goes_unnoticed_that_can_be_seen(outcomes):
    kinds = [kind for kind, _ in outcomes]
    assert len(kinds) == HOLES
    assert kinds.count("same") + kinds.count("unseen") <= HOLES // 4
    assert kinds.count("codec") + kinds.count("length") >= HOLES * 3 // 4


def test_the_band_named_is_the_damaged_one_nine_times_in_ten(outcomes):
    right = [named for kind, named in outcomes if kind in ("codec", "length")]
    assert np.mean(right) >= 0.9
    guessed = [named for kind, named in outcomes if kind == "length"]
    assert len(guessed) >= 5
    assert np.mean(guessed) >= 0.8


def test_a_hole_in_sound_bytes_of_zeros_changes_nothing(tile, frame, sound, tmp_path):
    # between blocks: 8 bytes of leader and trailer
    first, length = block_place(tile, 5, 1, 1)
    copy = punched(tile, tmp_path, first + length, 8)
    same(extract_embeddings(frame, source=archive(tmp_path, [(copy, GRID, 2024)])), sound)


# --- each kind of damage by itself


def rewritten(tile, folder, payload_of, *, band=21, row=1, col=2):
    """A copy of a tile whose one block (of `band`) is replaced by bytes of the same length."""
    first, length = block_place(tile, band, row, col)
    copy = folder / "tile.tiff"
    shutil.copy(tile, copy)
    payload = payload_of(tile.read_bytes()[first : first + length])
    assert len(payload) <= length
    with copy.open("r+b") as file:
        file.seek(first)
        file.write(payload.ljust(length, b"\0"))
    return archive(folder, [(copy, GRID, 2024)])


def frame_of(codes, length):
    """A ZSTD frame of codes, padded with a skippable frame to exactly `length` bytes."""
    data = imagecodecs.zstd_encode(codes.tobytes(), level=19)
    filler = length - len(data) - 8
    assert filler >= 0
    return data + (0x184D2A50).to_bytes(4, "little") + filler.to_bytes(4, "little") + bytes(filler)


DAMAGE = {
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: np.random.default_rng(0).bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "too short inside": lambda data: frame_of(np.zeros(BLOCK**2 - 64, np.int8), len(data)),
    "too long inside": lambda data: frame_of(np.zeros(BLOCK**2 + 64, np.int8), len(data)),
    "nothing inside": lambda data: frame_of(np.zeros(0, np.int8), len(data)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_the_codec_sees_names_tile_block_and_band(kind, tile, frame, tmp_path):
    source = rewritten(tile, tmp_path, DAMAGE[kind])
    with pytest.raises(ReadError, match="damaged") as error:
        extract_embeddings(frame, source=source)
    assert named_in(str(error.value)) == (str(tmp_path / "tile.tiff"), 1, 2, "A21")
    assert one_line(error.value)
    # also where only that band is asked for, and not at all where it isn't
    with pytest.raises(ReadError, match="A21"):
        extract_embeddings(frame, source=source, bands=["A03", "A21"])
    assert set(extract_embeddings(frame, source=source, bands=["A20", "A22"])["status"]) == {"ok"}


def test_a_band_of_nodata_in_sound_pixels_names_it(tile, frame, tmp_path):
    source = rewritten(tile, tmp_path, lambda data: frame_of(np.full(BLOCK**2, -128, np.int8), len(data)))
    with pytest.raises(ReadError, match=r"band A21 \(most likely\): damaged: 512 pixels") as error:
        extract_embeddings(frame.iloc[6:7], source=source, on_damage="raise")  # a quarter of it lies in the block
    assert one_line(error.value)


def test_a_band_of_zeros_is_seen_where_the_band_mattered(tile, frame, tmp_path, codes):
    block = codes[:, 64:128, 128:192].copy()  # the middle row of blocks, whatever the orientation
    band = int(np.abs(block.astype(int)).mean(axis=(1, 2)).argmax())
    source = rewritten(tile, tmp_path, lambda data: frame_of(np.zeros(BLOCK**2, np.int8), len(data)), band=band)
    block[band] = 0
    assert not all(can_be_unit(pixel) for pixel in block.reshape(64, -1).T)
    with pytest.raises(ReadError, match="damaged") as error:
        extract_embeddings(frame, source=source, on_damage="raise")
    assert named_in(str(error.value))[1:3] == (1, 2)


def test_the_pixel_named_is_a_damaged_one(tile, frame, tmp_path, codes):
    def one_pixel(data):
        block = decoded(tile, 21, 1, 2).copy()
        block[17, 33] = 111
        return frame_of(block, len(data))

    source = rewritten(tile, tmp_path, one_pixel)
    with pytest.raises(ReadError, match=r"damaged: 1 pixels .* \(row 17, column 33\) has length 1\.\d") as error:
        extract_embeddings(frame, source=source, on_damage="raise")
    assert "band A21" in str(error.value)


def test_collected_damage_spoils_exactly_the_sites_on_it(tile, frame, sound, tmp_path):
    source = rewritten(tile, tmp_path, DAMAGE["zeros"])
    table = extract_embeddings(frame, source=source, on_error="collect")
    # the block holds columns 128..191 and, from either end, rows 64..127
    on_it = [x + 48 > 128 and y < 128 and y + 48 > 64 for y in range(0, 192, 48) for x in range(0, 192, 48)]
    assert (table["status"] == "error").tolist() == on_it
    assert table.loc[on_it, [*BANDS, "n_pixels", "Rbar"]].isna().all(axis=None)
    kept = [not hit for hit in on_it]
    same(table[kept].reset_index(drop=True), sound[kept].reset_index(drop=True))
    (error,) = table.attrs["errors"]
    assert sorted(error["site_ids"]) == sorted(frame.loc[on_it, "site_id"])
    assert error["year"] == 2024
    assert "A21" in error["message"]


def test_collected_damage_of_pixels_spoils_the_sites_that_share_their_block(tile, frame, sound, tmp_path):
    def one_pixel(data):
        block = decoded(tile, 21, 1, 2).copy()
        block[2, 2] = 111
        return frame_of(block, len(data))

    source = rewritten(tile, tmp_path, one_pixel)
    table = extract_embeddings(frame, source=source, on_error="collect", on_damage="raise")
    bad = table["status"] == "error"
    assert 1 <= bad.sum() <= 4
    same(table[~bad].reset_index(drop=True), sound[~bad].reset_index(drop=True))
    assert len(table.attrs["errors"]) == 1


def test_several_damaged_blocks_are_all_collected(tile, frame, tmp_path):
    copy = tmp_path / "tile.tiff"
    shutil.copy(tile, copy)
    with copy.open("r+b") as file:
        for band, row, col in ((3, 0, 0), (60, 2, 2)):
            first, length = block_place(tile, band, row, col)
            file.seek(first)
            file.write(bytes(length))
    table = extract_embeddings(frame, source=archive(tmp_path, [(copy, GRID, 2024)]), on_error="collect")
    messages = " ".join(error["message"] for error in table.attrs["errors"])
    assert len(table.attrs["errors"]) == 2
    assert "A03" in messages
    assert "A60" in messages


@pytest.mark.parametrize(("compression", "interleave"), [("deflate", "band"), ("none", "band"), ("zstd", "pixel")])
def test_other_layouts_are_watched_too(compression, interleave, codes, frame, tmp_path):
    sound_tile = write_gdal(
        tmp_path / "sound.tiff", GRID, codes, compress=compression, interleave=interleave, tiled=True,
        blockxsize=BLOCK, blockysize=BLOCK,
    )  # fmt: skip
    header = open_tile(str(sound_tile), 2024)
    rng = np.random.default_rng(1)
    seen = 0
    for i in range(8):
        part, row, col = int(rng.integers(len(header.offsets))), int(rng.integers(3)), int(rng.integers(3))
        start = int(header.offsets[part, row, col] + rng.integers(header.lengths[part, row, col] - 64))
        copy = punched(sound_tile, tmp_path / str(i), start)
        try:
            extract_embeddings(frame, source=archive(tmp_path / str(i), [(copy, GRID, 2024)]), on_damage="raise")
        except ReadError as error:
            message = str(error)
            assert one_line(message)
            assert named_in(message)[:3] == (str(copy), row, col)
            seen += 1
    assert seen >= (3 if compression == "none" else 6)  # a few zeroed codes may be near 0 anyway


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tile, frame, tmp_path, monkeypatch):
    copy = tmp_path / "tile.tiff"
    shutil.copy(tile, copy)
    source = archive(tmp_path, [(copy, GRID, 2024)])
    plan = source.plan(frame.geometry.to_numpy(), [2024])
    copy.write_bytes(copy.read_bytes()[:30_000])
    blocks = list(source.read([ref for job in plan.jobs for ref in job.reads], BANDS))
    assert all(isinstance(block, ReadError) for block in blocks)
    assert all(one_line(block) and str(copy) in str(block) for block in blocks)
    copy.unlink()
    with pytest.raises(ReadError, match=r"tile\.tiff"):
        extract_embeddings(frame, source=source)


def test_a_store_that_answers_short_is_an_error(tile, frame, monkeypatch):
    original = _fetch._local_ranges

    def short(want):
        return [bytes(part)[:-1] for part in original(want)]

    monkeypatch.setattr(_fetch, "_local_ranges", short)
    with pytest.raises(ReadError, match="damaged"):
        extract_embeddings(frame, source=archive(tile.parent, [(tile, GRID, 2024)]))


def test_damage_in_a_tile_beneath_another_is_named_as_that_tile_s(tile, frame, codes, tmp_path):
    # where two tiles hold a pixel the first one's counts: so the second one's needs it
    other = write_tile(tmp_path / "z.tiff", GRID, codes, block=BLOCK)
    damaged = tmp_path / "a.tiff"
    shutil.copy(tile, damaged)
    first, length = block_place(tile, 0, 1, 2)
    with damaged.open("r+b") as file:
        file.seek(first)
        file.write(bytes(length))
    source = archive(tmp_path, [(damaged, GRID, 2024), (other, GRID, 2024)])
    with pytest.raises(ReadError) as error:
        extract_embeddings(frame, source=source)
    assert named_in(str(error.value)) == (str(damaged), 1, 2, "A00")
    table = extract_embeddings(frame, source=source, on_error="collect")
    assert set(table["status"]) == {"ok", "error"}
    assert {e["url"] for e in table.attrs["errors"]} == {str(damaged)}


# --- read again: what the file has, counts


def with_one_pixel(tile, folder, value=111, at=(17, 33)):
    """A copy of a tile with one pixel changed in band A21 of block (1, 2)."""

    def payload(data):
        block = decoded(tile, 21, 1, 2).copy()
        block[at] = value
        return frame_of(block, len(data))

    return rewritten(tile, folder, payload)


def warned(*args, **kwargs):
    """A table, and the messages of the DataWarnings on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        table = extract_embeddings(*args, **kwargs)
    return table, [str(w.message) for w in caught if issubclass(w.category, DataWarning)]


def swapped(source, *others):
    """A source whose first readings of block (1, 2) come from other archives of the same tile."""

    class Swapped(type(source)):
        readings = 0

        def read(self, refs, bands):
            for block in super().read(refs, bands):
                if not isinstance(block, ReadError) and block.ref.index == (1, 2):
                    if self.readings < len(others):
                        other = others[self.readings]
                        place = other.index.near(np.array([[-180.0, -90.0, 180.0, 90.0]])).place[0]
                        self.readings += 1
                        yield from other.read([replace(block.ref, tile=str(place))], bands)
                        continue
                    self.readings += 1
                yield block

    changed = object.__new__(Swapped)
    changed.__dict__.update(source.__dict__)
    return changed


def test_wrong_lengths_that_the_file_has_count_with_a_warning(tile, frame, sound, tmp_path):
    source = with_one_pixel(tile, tmp_path)
    table, messages = warned(frame, source=source, statistics=["mean", "medoid"])
    assert set(table["status"]) == {"ok"}
    assert table["n_pixels"].equals(sound["n_pixels"])
    # its value counts: one pixel of some 48 x 48 in that band alone, and in no other site
    names = [f"{band}_mean" for band in BANDS]
    moved = (table[names].to_numpy() - sound[list(BANDS)].to_numpy()) != 0
    assert moved.sum(axis=0).tolist() == [0] * 21 + [1] + [0] * 42
    (message,) = messages
    assert "1 pixels in 1 blocks can't be unit vectors" in message
    assert f"{tmp_path / 'tile.tiff'}: block (row 1, column 2), 2024: 1 of 4096 pixels have lengths 1." in message
    assert "on_damage='raise'" in message
    note = table.attrs["provenance"]["damaged_pixels"]
    assert note in message
    with pytest.raises(UsageError, match="on_damage"):
        extract_embeddings(frame, source=source, on_damage="ignore")


def test_a_sound_archive_has_no_word_of_damage(tile, frame):
    table, messages = warned(frame, source=archive(tile.parent, [(tile, GRID, 2024)]))
    assert messages == []
    assert "damaged_pixels" not in table.attrs["provenance"]


def test_pixels_that_lack_a_band_are_left_out_with_a_warning(tile, frame, sound, codes, tmp_path):
    source = with_one_pixel(tile, tmp_path, value=-128, at=(17, 33))
    table, messages = warned(frame, source=source, statistics=["mean", "medoid", "count"])
    (message,) = messages
    assert "1 of 4096 pixels lack some of their bands and are left out" in message
    whole, _ = warned(frame, source=archive(tile.parent, [(tile, GRID, 2024)]), statistics=["mean", "medoid", "count"])
    fewer = table["n_pixels"] != whole["n_pixels"]
    assert fewer.sum() == 1
    assert (whole["n_pixels"] - table["n_pixels"]).max() == 1
    same(table[~fewer], whole[~fewer])
    # exactly as if the pixel were nodata in all bands
    masked = codes.copy()
    row, col = 64 + 17, 128 + 33
    masked[:, GRID.shape[0] - 1 - row if GRID.flip_y else row, col] = -128
    (tmp_path / "masked").mkdir()
    other = write_tile(tmp_path / "masked" / "tile.tiff", GRID, masked, block=BLOCK)
    expected, _ = warned(
        frame, source=archive(other.parent, [(other, GRID, 2024)]), statistics=["mean", "medoid", "count"]
    )
    same(table, expected)


def test_a_whole_block_that_is_off_is_said_to_be(tile, frame, codes, tmp_path):
    scaled = np.where(codes == -128, codes, np.rint(codes * 0.9)).astype(np.int8)
    path = write_tile(tmp_path / "tile.tiff", GRID, scaled, block=BLOCK)
    table, (message,) = warned(frame, source=archive(tmp_path, [(path, GRID, 2024)]))
    assert set(table["status"]) == {"ok"}
    assert "in 9 blocks" in message
    assert re.search(
        r"4096 of 4096 pixels have lengths 0\.\d+\.\.0\.8\d+ .*most of the block .*median length 0\.81", message
    )


@pytest.mark.parametrize("on_damage", ["warn", "raise"])
def test_a_sound_second_reading_is_used(on_damage, tile, frame, sound, tmp_path):
    broken = with_one_pixel(tile, tmp_path)
    source = swapped(archive(tile.parent, [(tile, GRID, 2024)]), broken)
    table, messages = warned(frame, source=source, on_damage=on_damage)
    same(table, sound)
    assert messages == []
    assert source.readings == 2


def test_readings_that_differ_are_read_until_two_agree(tile, frame, sound, tmp_path):
    sources = []
    for i, value in enumerate((111, 112, 113, 114, 115, 116)):
        (tmp_path / str(i)).mkdir()
        sources.append(with_one_pixel(tile, tmp_path / str(i), value))
    stable = archive(tile.parent, [(tile, GRID, 2024)])
    table, messages = warned(frame, source=swapped(stable, *sources[:3]))
    same(table, sound)
    assert messages == []
    with pytest.raises(ReadError, match="each reading gives other bytes") as error:
        extract_embeddings(frame, source=swapped(stable, *sources))
    assert one_line(error.value)
    assert named_in(str(error.value))[1:3] == (1, 2)


def test_a_block_far_away_is_fetched_again_once(tile, frame, tmp_path):
    near = with_one_pixel(tile, tmp_path)
    on_disk, _ = warned(frame, source=near)
    with serve(tmp_path) as server:
        row = index_row(f"{server.url}/tile.tiff", GRID)
        source = CogSource(write_index(tmp_path, [row]), network=Network(first_wait_s=0.001, timeout_s=10))
        table, (message,) = warned(frame, source=source)
        block = [(first, last) for _, first, last, _ in server.log if block_holds(tile, 21, 1, 2, first, last)]
    same(table, on_disk)
    assert f"{server.url}/tile.tiff: block (row 1, column 2), 2024: 1 of 4096 pixels" in message
    assert len(block) == 2


def block_holds(tile, band, row, col, first, last):
    """Whether a range of bytes holds one block of one band."""
    start, length = block_place(tile, band, row, col)
    return first <= start and start + length - 1 <= last


def test_single_rasters_need_not_hold_unit_vectors(codes, frame):
    halves = (codes // 2).astype(np.int8)
    source = RasterSource(halves[:, :: -1 if GRID.flip_y else 1], grid=GRID, year=2024)
    for on_damage in ("warn", "raise"):
        table, messages = warned(frame, source=source, on_damage=on_damage)
        assert set(table["status"]) == {"ok"}
        assert messages == []


def test_the_command_lets_damage_count_or_stops(tile, frame, tmp_path):
    with_one_pixel(tile, tmp_path)
    frame.to_file(tmp_path / "sites.geojson", driver="GeoJSON")
    command = ["extract", str(tmp_path / "sites.geojson"), "--years", "2024"]
    command += ["--source", str(tmp_path / "aef_index.parquet"), "-o", str(tmp_path / "t.csv")]
    stopped = CliRunner().invoke(main, [*command, "--on-damage", "raise"])
    assert stopped.exit_code == 1
    assert "can't be unit vectors" in stopped.output
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0
    assert "1 pixels in 1 blocks can't be unit vectors" in done.output
    assert "damaged_pixels" in (tmp_path / "t.csv-metadata.json").read_text()


# --- no false alarms


def test_sound_tiles_raise_no_alarm(tile, frame, sound):
    assert set(sound["status"]) == {"ok"}
    masked = unit_codes(SHAPE, seed=8, masked=0.3)
    path = write_tile(tile.parent / "masked.tiff", GRID, masked, block=BLOCK)
    table = extract_embeddings(frame, source=archive(tile.parent, [(path, GRID, 2024)]))
    assert set(table["status"]) == {"ok"}


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED}: the real files aren't here")
def test_holes_in_real_pixels_are_seen_and_named(tmp_path):
    path = SHARED / "wisconsin_2024_64band_southup_int8.tif"
    header = open_tile(str(path), 2024)
    everything = sites([shapely.box(*header.grid.bounds)], crs=header.grid.crs)
    rng = np.random.default_rng(2)
    right = []
    for i in range(30):
        band, row, col = int(rng.integers(64)), int(rng.integers(4)), int(rng.integers(4))
        length = int(header.lengths[band, row, col])
        if length < 200:
            continue  # the rim blocks are mostly padding
        copy = punched(path, tmp_path / str(i), int(header.offsets[band, row, col] + rng.integers(length - 64)))
        try:
            source = archive(tmp_path / str(i), [(copy, header.grid, 2024)])
            extract_embeddings(everything, source=source, on_damage="raise")
        except ReadError as error:
            named = named_in(str(error))
            assert named[1:3] == (row, col)
            right.append(named[3] == BANDS[band])
    assert len(right) >= 15
    assert np.mean(right) >= 0.9
