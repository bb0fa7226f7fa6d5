"""Pictures: the only place that opens one, and says which files are pictures. Needs numpy and Pillow alone.

A picture is RGB with 8 bits per channel, upright as its camera says (EXIF), on white where it is transparent. Anything with
more bits (what thermal cameras count) is refused, as cutting it off at 255 would make it white; a `Window` says how its
numbers become grey values.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# What such files hold, whatever they are called. Others that Pillow knows start programs (EPS) or are no pictures of people.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "GIF")
# A small file can claim any size: a person's crop, and a camera's whole frame, have far fewer pixels.
MOST_PIXELS = 89_478_485
_ORIENTATION = 0x0112
_SUBFILE = 254
_SAMPLE_FORMAT = 339


class PictureError(OSError):
    """A picture that cannot be used; the message names the file, the fact and the remedy."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


class DepthError(PictureError):
    """A picture with more than 8 bits, and nothing says how they become 8."""


class SeveralError(PictureError):
    """A file of several pictures (an animation, or pages), and nothing says which one is meant."""


class Window(NamedTuple):
    """What of a thermal camera's numbers becomes grey: `low` and below black, `high` and above white, linear between.

    The same for every picture, so that equal temperatures stay equal between pictures, in training as in a search.
    """

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Window | None":
        """The window that INPUT.IR_SCALING gives; none for ()."""
        if not len(values):
            return None
        numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
        if len(values) != 2 or not numbers or values[0] >= values[1]:
            raise ValueError(
                f"INPUT.IR_SCALING is {tuple(values)!r}; give the lowest and the highest count of the infrared camera, e.g. "
                "(20000, 28000), or () to refuse pictures of more than 8 bits."
            )
        return cls(float(values[0]), float(values[1]))


def open_picture(source: str | os.PathLike[str] | IO[bytes] | Image.Image, window: Window | None = None) -> Image.Image:
    """A picture as RGB with 8 bits, upright.

    Args:
        source: a file, an open one, or what Pillow opened.
        window: how more than 8 bits become 8 ones; None refuses them.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, getattr(source, "filename", "") or "The picture", window)
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "") or "The picture"
    with _reading(name, source) as image:
        return _to_rgb(image, name, window)


def counts_of(path: str | os.PathLike[str]) -> np.ndarray | None:
    """The numbers of a picture with one channel of more than 8 bits, (H, W); None for any other picture."""
    with _reading(os.fspath(path), path) as image:
        image.load()
        return _counts(image, _is_signed(image)) if _is_deep(image) else None


class _reading:
    """Open a file; whatever its decoder raises inside the block becomes a PictureError with the file's name."""

    def __init__(self, name: str, source: str | os.PathLike[str] | IO[bytes]) -> None:
        self.name, self.source = name, source
        self.image: Image.Image | None = None
        self.file: IO[bytes] | None = None

    def __enter__(self) -> Image.Image:
        try:
            # Opened here: by name, Pillow maps an uncompressed TIFF into memory and mixes up its rows if it lies on its side.
            is_path = isinstance(self.source, str | os.PathLike)
            self.file = open(self.source, "rb") if is_path else None  # type: ignore[arg-type]
            self.image = Image.open(self.file or self.source, formats=FORMATS)  # type: ignore[arg-type]
            if self.image.width * self.image.height > MOST_PIXELS:
                raise Image.DecompressionBombError
        except Exception as error:
            self.__exit__(type(error), error, None)
            raise
        return self.image

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for opened in (self.image, self.file):
            if opened is not None:
                opened.close()
        if error is None or isinstance(error, PictureError) or not isinstance(error, Exception):
            return
        if isinstance(error, OSError) and error.filename is not None:  # no such file, a folder, no permission, ...
            return
        raise PictureError(self.name, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"it claims more than {MOST_PIXELS // 10**6} million pixels; cut the person out, or save it smaller."
    if isinstance(error, Image.UnidentifiedImageError):
        kinds = ", ".join(FORMATS)
        return f"it is no picture ({kinds} are read), or its first bytes are damaged ({type(error).__name__}); write it again."
    # A damaged file raises whatever its decoder meets first: OSError, SyntaxError, ValueError, struct.error ...
    return f"it is damaged ({type(error).__name__}: {error}); write it again."


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _is_signed(image: Image.Image) -> bool:
    return image.format != "TIFF" or 2 in np.ravel(image.tag_v2.get(_SAMPLE_FORMAT, 1))  # type: ignore[attr-defined]


def _counts(image: Image.Image, signed: bool) -> np.ndarray:
    """The numbers of a picture with more than 8 bits; Pillow takes 32 bits for signed ones, whatever a TIFF says of them."""
    counts = np.asarray(image)
    return counts if signed or counts.dtype != np.int32 else counts.view(np.uint32)


def _to_rgb(image: Image.Image, name: str, window: Window | None) -> Image.Image:
    # Pillow keeps the high byte of several 16-bit channels: for a camera that uses a part of its range, a few levels are left.
    # A BMP's BGR;16 are 16 bits per pixel.
    raw = [str(tile[3]) for tile in getattr(image, "tile", ())]
    if any(";16" in mode and "BGR" not in mode for mode in raw) and not _is_deep(image):
        raise DepthError(name, f"it has 16 bits in each of its {len(image.getbands())} channels; save it with 8.")
    if _is_deep(image) and window is None:
        raise DepthError(
            name,
            "it has more than 8 bits per pixel, as thermal cameras write it. INPUT.IR_SCALING (low, high) says which counts of "
            "infrared pictures become black and white; or save it with 8 bits.",
        )
    if (frames := _frames(image)) > 1:
        raise SeveralError(name, f"it holds {frames} pictures (an animation, or pages); save the one that is meant by itself.")
    signed = _is_signed(image)
    if signed and image.format == "TIFF" and not _is_deep(image):
        raise PictureError(name, "its numbers have signs, which 8 bits of a picture have not; save it with 0 to 255.")
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if _is_deep(image) and window is not None:
        counts = _counts(image, signed).astype(np.float64)
        if not np.isfinite(counts).all():
            raise PictureError(name, "some of its pixels are no numbers (NaN or infinite); write it again.")
        grey = np.clip((counts - window.low) / (window.high - window.low), 0, 1)
        image = Image.fromarray(np.rint(grey * 255).astype(np.uint8))
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """As pages and viewers show it. What lies under transparent pixels is hidden from people, and any colour at all."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _frames(image: Image.Image) -> int:
    """How many pictures a file holds; small copies in a TIFF, and what phones put behind a JPEG (depth, HDR), are none."""
    if image.format != "TIFF" or getattr(image, "n_frames", 1) == 1:
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    count = 0
    for page in range(image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        count += not int(image.tag_v2.get(_SUBFILE, 0)) & 1  # type: ignore[attr-defined]
    image.seek(0)
    return count


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # notes of a camera that cannot be read say nothing about the pixels
        return 1


# --- which files are pictures -----------------------------------------------------------------------------------------


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends as pictures do."""
    return os.fspath(name).lower().endswith(SUFFIXES)


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        paths: its pictures, sorted.
        left_out: why -> the other files.
    """

    paths: list[str]
    left_out: dict[str, list[str]]

    def told(self, root: str | os.PathLike[str] = "") -> str:
        """What was left out, in a sentence; "" if nothing was. Paths are told relative to a root."""
        total = sum(map(len, self.left_out.values()))
        shown = {why: os.path.relpath(files[0], root) if root else files[0] for why, files in self.left_out.items()}
        reasons = [f"{len(files)} {why} (e.g. {shown[why]})" for why, files in sorted(self.left_out.items())]
        return f"{total} file{'s are' if total > 1 else ' is'} left out: {'; '.join(reasons)}." if total else ""


def find_pictures(folder: str | os.PathLike[str]) -> Found:
    """All pictures below a folder, also behind symbolic links; a link into a folder that it lies in is not followed."""
    paths: list[str] = []
    left_out: dict[str, list[str]] = {}
    for path, why in _walk(Path(folder), ()):
        if why:
            left_out.setdefault(why, []).append(path)
        else:
            paths.append(path)
    return Found(sorted(paths), {why: sorted(files) for why, files in left_out.items()})


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, str]]:
    """(path, why it is left out or "") of everything below a folder."""
    status = folder.stat()
    above = (*above, (status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                if not os.path.isdir(entry):
                    yield entry.path, "hidden"
            elif entry.is_dir(follow_symlinks=False) or os.path.isdir(entry):  # a link to itself makes entry.is_dir() raise
                inside = os.stat(entry)  # on Windows, entry.stat() has no file number
                if (inside.st_dev, inside.st_ino) in above:
                    yield entry.path, "linked to a folder they lie in"
                else:
                    yield from _walk(Path(entry.path), above)
            elif not is_picture(entry.name):
                ending = Path(entry.name).suffix
                yield entry.path, f"ending in {ending}" if ending else "without an ending"
            elif not (entry.is_file(follow_symlinks=False) or os.path.isfile(entry)):
                yield entry.path, "linked to nowhere" if entry.is_symlink() else "no files"
            else:
                yield entry.path, ""
