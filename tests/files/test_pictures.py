"""Pictures by property: every mode, depth, orientation and suffix is right or refused with a sentence, never something else."""

import contextlib
import io
import os
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from tvilfm_plugin.data.image_cache import ImageCache
from tvilfm_plugin.data.resize import picture_pixels, read_resized
from tvilfm_plugin.files import pictures
from tvilfm_plugin.files.pictures import DepthError, PictureError, Window, find_pictures, open_picture

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK")
# What can hold which mode without loss; JPEG by a tolerance.
HOLDS = {
    ".png": {"1", "L", "P", "RGB", "RGBA", "LA"},
    ".bmp": {"1", "L", "P", "RGB"},
    ".tif": {"1", "L", "P", "RGB", "RGBA", "LA", "CMYK"},
    ".webp": {"RGB", "RGBA"},
    ".jpg": {"L", "RGB", "CMYK"},
}
KINDS = [(suffix, mode) for suffix, modes in HOLDS.items() for mode in MODES if mode in modes]
# EXIF orientation -> Pillow's operation that makes an upright picture into the stored one.
STORED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
SAVED_AS = {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".jpg": "JPEG", ".bmp": "BMP"}


def upright(height: int, width: int) -> np.ndarray:
    """A picture that every turn and every mirror changes."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 200 // height + 20, x * 200 // width + 20, 0 * x + 60], -1).astype(np.uint8)


def saved(image: Image.Image, suffix: str, orientation: int = 1) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    image.save(file, SAVED_AS[suffix], **options, **({} if suffix == ".bmp" else {"exif": exif}))
    return file.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS), orientation=st.sampled_from(range(1, 9)), height=st.integers(8, 30), width=st.integers(8, 30)
)
def test_eight_bits_are_upright_rgb(tmp_path_factory, kind, orientation, height, width):
    suffix, mode = kind
    orientation = 1 if suffix == ".bmp" else orientation
    expected = Image.fromarray(upright(height, width)).convert(mode)
    stored = expected.copy()
    if orientation != 1:
        stored = stored.transpose(Image.Transpose(STORED[orientation]))
    path = tmp_path_factory.getbasetemp() / f"picture{suffix}"
    path.write_bytes(saved(stored, suffix, orientation))
    got = open_picture(path)
    assert got.mode == "RGB" and got.size == (width, height)
    wanted = np.asarray(expected.convert("RGB"), int)
    tolerance = {"CMYK": 12, "L": 6, "RGB": 6}[mode] if suffix == ".jpg" else 0
    assert np.abs(np.asarray(got, int) - wanted).max() <= tolerance
    assert np.array_equal(picture_pixels(np.asarray(got), (height, width)), read_resized(str(path), (height, width)))


@settings(max_examples=30, deadline=None)
@given(alpha=st.lists(st.sampled_from([0, 1, 127, 254, 255]), min_size=4, max_size=4), hidden=st.integers(0, 255))
def test_what_is_transparent_is_white_whatever_lies_underneath(alpha, hidden):
    """As a share of white, in every mode and format that has transparency."""
    alpha = np.array(alpha, np.uint8).reshape(2, 2)
    grey = np.where(alpha > 0, 90, hidden).astype(np.uint8)
    both = np.stack([grey, grey, grey, alpha], -1)
    wanted = np.rint(grey * (alpha / 255) + 255 * (1 - alpha / 255))
    palette = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    palette.putpalette([value for value in grey.ravel() for _ in range(3)])
    files = [(kind, Image.fromarray(both), {}) for kind in ("PNG", "TIFF")] + [("PNG", Image.fromarray(both[..., 2:]), {})]
    files += [("WEBP", Image.fromarray(both), {"lossless": True, "exact": True})]
    files += [("PNG", palette, {"transparency": bytes(alpha.ravel().tolist())})]
    for kind, image, options in files:
        file = io.BytesIO()
        image.save(file, kind, **options)
        got = np.asarray(open_picture(file), int)
        assert np.abs(got - wanted[..., None]).max() <= 1, (kind, image.mode)
        assert (got[alpha == 255] == 90).all() and (got[alpha == 0] == 255).all()


def test_one_colour_may_stand_for_transparency():
    for image, colour in ((Image.new("L", (3, 2), 7), 7), (Image.new("RGB", (3, 2), (1, 2, 3)), (1, 2, 3))):
        image.putpixel((0, 0), 200 if image.mode == "L" else (200, 200, 200))
        file = io.BytesIO()
        image.save(file, "PNG", transparency=colour)
        assert sorted({pixel[0] for pixel in open_picture(file).getdata()}) == [200, 255]


def deep_pictures(counts: np.ndarray) -> dict[str, Image.Image]:
    return {
        "a.png": Image.fromarray(counts.astype(np.uint16)), "a.tif": Image.fromarray(counts.astype(np.uint16)),
        "f.tif": Image.fromarray(counts.astype(np.float32)), "i.tif": Image.fromarray(counts.astype(np.int32)),
    }  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(low=st.integers(0, 40000), span=st.integers(1, 20000), orientation=st.sampled_from([1, 3, 6, 8]))
def test_more_than_eight_bits_need_a_window(tmp_path_factory, low, span, orientation):
    folder = tmp_path_factory.getbasetemp()
    counts = np.linspace(max(0, low - 3000), min(65535, low + span + 3000), 24 * 12).reshape(24, 12).astype(np.uint16)
    window = Window.of((low, low + span))
    grey = np.rint(np.clip((counts.astype(float) - low) / span, 0, 1) * 255)
    for name, image in deep_pictures(counts).items():
        stored = image.transpose(Image.Transpose(STORED[orientation])) if orientation != 1 else image
        (folder / name).write_bytes(saved(stored, name[-4:], orientation))
        with pytest.raises(DepthError, match=f"{name}: it has more than 8 bits.*INPUT.IR_SCALING"):
            open_picture(folder / name)
        got = np.asarray(open_picture(folder / name, window))
        assert got.shape == (24, 12, 3) and np.array_equal(got, np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(picture_pixels(counts, (24, 12), window=window), got)
    assert np.array_equal(ImageCache([str(folder / "a.png")], (24, 12), folder / "cache", window=window)[0], got)
    with pytest.raises(OSError, match="1 of 1 images cannot be read: .*more than 8 bits"):
        ImageCache([str(folder / "a.png")], (24, 12), folder / "cache")
    with pytest.raises(ValueError, match="are no image"):
        picture_pixels(counts, (24, 12))


def png16(colour: int, channels: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(8 * channels * 2) for _ in range(6))
    header = struct.pack(">IIBBBBB", 8, 6, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_in_several_channels_are_refused(colour, channels):
    for window in (None, Window(0, 65535)):
        with pytest.raises(DepthError, match="16 bits in each of its"):
            open_picture(io.BytesIO(png16(colour, channels)), window)


def test_a_window_is_two_numbers():
    assert Window.of(()) is None and Window.of([1, 5]) == (1.0, 5.0)
    for wrong in ((1,), (5, 1), (1, 1), (1, float("nan")), (1, 2, 3)):
        with pytest.raises(ValueError, match="INPUT.IR_SCALING is"):
            Window.of(wrong)
    infinite = Image.fromarray(np.array([[np.nan, 1]], np.float32))
    with pytest.raises(PictureError, match="no numbers"):
        open_picture(infinite, Window(0, 1))


def test_what_is_no_picture_is_said(tmp_path, monkeypatch):
    whole = saved(Image.fromarray(upright(40, 40)), ".jpg")
    for name, content, why in (
        ("cut.jpg", whole[: len(whole) // 2], "damaged"),
        ("empty.png", b"", "no picture"),
        ("page.jpg", b"<html>404</html>", "no picture"),
        ("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=f"{name}: it is {why}"):
            open_picture(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "nowhere.jpg")
    (tmp_path / "whole.jpg").write_bytes(whole)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 1000)
    with pytest.raises(PictureError, match="claims more than"):
        open_picture(tmp_path / "whole.jpg")


def test_unreadable_exif_says_nothing(tmp_path):
    data = saved(Image.fromarray(upright(20, 10)), ".jpg", 6)
    at = data.index(b"Exif\0\0") + 6
    (tmp_path / "a.jpg").write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
    assert open_picture(tmp_path / "a.jpg").size == (10, 20)


def test_folders_are_followed_once_and_the_rest_is_counted(tmp_path):
    real, linked = tmp_path / "real", tmp_path / "linked"
    for name in ("p/a.JPG", "p/b.tiff", "p/c.webp", "p/notes.txt", "p/.hidden.png", "p/none"):
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        (real / name).touch()
    linked.mkdir()
    (linked / "one").symlink_to(real / "p")
    (linked / "two").symlink_to(real / "p")
    (real / "p" / "loop").symlink_to(linked)
    (linked / "gone.jpg").symlink_to(real / "nowhere")
    (linked / "self.jpg").symlink_to("self.jpg")
    found = find_pictures(linked)
    names = [os.path.relpath(path, linked) for path in found.paths]
    assert names == [f"{folder}/{name}" for folder in ("one", "two") for name in ("a.JPG", "b.tiff", "c.webp")]
    counted = {why: len(files) for why, files in found.left_out.items()}
    assert counted == {
        "ending in .txt": 2, "hidden": 2, "without an ending": 2, "linked to a folder they lie in": 2, "linked to nowhere": 2,
    }  # fmt: skip
    assert found.told(linked).startswith("10 files are left out: 2 ending in .txt (e.g. one/notes.txt); 2 hidden")
    assert str(real / "p" / "a.JPG") in find_pictures(real / "p").paths


def test_a_ring_of_links_ends_where_entries_have_no_file_numbers(tmp_path, monkeypatch):
    """Windows' directory entries have 0 for device and file number."""

    class Entry:
        def __init__(self, entry):
            self._entry = entry

        def __getattr__(self, name):
            return getattr(self._entry, name)

        def __fspath__(self):
            return self._entry.path

        def stat(self):
            return SimpleNamespace(st_dev=0, st_ino=0)

    scandir = os.scandir
    monkeypatch.setattr(pictures.os, "scandir", lambda folder: contextlib.nullcontext(map(Entry, scandir(folder))))
    (tmp_path / "a.jpg").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_pictures(tmp_path)
    assert found.paths == [str(tmp_path / "a.jpg")]
    assert found.left_out == {"linked to a folder they lie in": [str(tmp_path / "loop")]}


@pytest.mark.parametrize("ending", [".gif", ".webp", ".png", ".tif"])
def test_a_file_of_several_pictures_says_how_many(tmp_path, ending):
    """Of an animation or a stack of pages nobody says which picture is meant."""
    frames = [Image.new("RGB", (12, 24), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / f"a{ending}", save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match=r"it holds 3 pictures .* save the one that is meant"):
        open_picture(tmp_path / f"a{ending}")
    frames[1].save(tmp_path / f"b{ending}")
    assert open_picture(tmp_path / f"b{ending}").size == (12, 24)


def test_copies_beside_a_photograph_are_no_further_pictures(tmp_path):
    """What phones put behind a JPEG, and a small copy in a TIFF."""
    frames = [Image.new("RGB", (12, 24), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert np.asarray(open_picture(tmp_path / "a.jpg"))[0, 0, 0] > 250
    with AppendingTiffWriter(tmp_path / "a.tif", True) as file:
        for copy, frame in enumerate(frames):
            frame.save(file, format="TIFF", tiffinfo={254: copy})
            file.newFrame()
    assert open_picture(tmp_path / "a.tif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(("compression", "pixel"), [(3, 0xF800), (0, 0x7C00)])
def test_sixteen_bits_per_pixel_are_not_sixteen_per_channel(compression, pixel):
    """BMP's 5-6-5 and 5-5-5."""
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F) if compression == 3 else b""
    pixels = struct.pack("<H", pixel) * 64
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 16, compression, len(pixels), 0, 0, 0, 0) + masks
    start = 14 + len(header)
    file = io.BytesIO(b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + pixels)
    assert open_picture(file).getpixel((0, 0)) == (255, 0, 0)


def tiff(bits: int, sample_format: int, pixels: bytes) -> bytes:
    """A picture of 4 x 4 numbers as their TIFF's tags say they are."""
    tags = [(256, 4), (257, 4), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in [*tags, (339, sample_format)])
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", 10) + entries + bytes(4)


def test_numbers_have_the_sign_that_the_file_says(tmp_path):
    counts = np.arange(16, dtype=np.uint32) * 2**28
    (tmp_path / "a.tif").write_bytes(tiff(32, 1, counts.astype("<u4").tobytes()))
    grey = np.rint(np.arange(16) / 15 * 255).reshape(4, 4)
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.tif", Window(0, 15 * 2.0**28)))[..., 0], grey)
    assert np.array_equal(pictures.counts_of(tmp_path / "a.tif"), counts.reshape(4, 4))
    (tmp_path / "a.tif").write_bytes(tiff(16, 2, np.arange(-8, 8).astype("<i2").tobytes()))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.tif", Window(-8, 7)))[..., 0], grey)
    (tmp_path / "a.tif").write_bytes(tiff(8, 2, np.arange(-8, 8).astype("i1").tobytes()))
    with pytest.raises(PictureError, match="its numbers have signs"):
        open_picture(tmp_path / "a.tif")
