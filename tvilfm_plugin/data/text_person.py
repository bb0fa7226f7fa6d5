"""Text-person data sets without infrared images (CUHK-PEDES, ICFG-PEDES, RSTPReid), and ORBench's explicit query lists.

They are read where their owners put them, below the folder of the data sets; nothing of them comes with the plugin.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tvilfm_plugin.files.json import JsonError, checked, kind_of, read_json
from tvilfm_plugin.files.text import is_blank


class Layout(NamedTuple):
    """How a text-person data set lies on disk.

    Attributes:
        folder: its usual name.
        lists: names that its annotation list has.
        image_key: key of an image's path in it, relative to `images`.
        published: (split, what) -> count; what is "ids" or "RGB".
    """

    folder: str
    lists: tuple[str, ...]
    image_key: str
    published: Mapping[tuple[str, str], int]
    images: str = "imgs"


LAYOUTS = {
    "cuhk-pedes": Layout(
        "CUHK-PEDES", ("reid_raw.json",), "file_path",
        {("train", "ids"): 11_003, ("train", "RGB"): 34_054, ("val", "ids"): 1_000, ("val", "RGB"): 3_078,
         ("test", "ids"): 1_000, ("test", "RGB"): 3_074},
    ),
    "icfg-pedes": Layout(
        "ICFG-PEDES", ("ICFG-PEDES.json", "ICFG_PEDES.json"), "file_path",
        {("train", "ids"): 3_102, ("train", "RGB"): 34_674, ("test", "ids"): 1_000, ("test", "RGB"): 19_848},
    ),
    "rstpreid": Layout(
        "RSTPReid", ("data_captions.json",), "img_path",
        {("train", "ids"): 3_701, ("train", "RGB"): 18_505, ("val", "ids"): 200, ("val", "RGB"): 1_000,
         ("test", "ids"): 200, ("test", "RGB"): 1_000},
    ),
}  # fmt: skip
"""By the name that commands give them."""
ORBENCH = "orbench"
_GALLERY = "RGB_GALLERY"
FOLDERS = {**{key: layout.folder for key, layout in LAYOUTS.items()}, ORBENCH: "ORBench"}
"""Their usual names."""
_TRAIN_LIST, _TEST_LIST = "train_annos.json", "test_gallery_and_queries.json"
# What a query of a list can be made of here.
_PARTS = ("NIR", "TEXT")


class Captioned(NamedTuple):
    """A visible image with what people wrote of it."""

    path: str
    pid: int
    split: str
    captions: tuple[str, ...]


class ListQuery(NamedTuple):
    """One entry of a query list: who is meant, and the infrared image, the sentence, or both."""

    pid: int
    infrared: str = ""
    text: str = ""


class QueryLists(NamedTuple):
    """A gallery of (person, visible image), queries by their list's name, and lengths of lists that no model here reads."""

    folder: Path
    gallery: list[tuple[int, str]]
    queries: dict[str, list[ListQuery]]
    left_out: dict[str, int]


def find_folder(key: str, root: str, folder: str = "") -> Path:
    """The folder of a data set below `root`; raises where it is not."""
    found = Path(root, folder or FOLDERS[key])
    if not found.is_dir():
        raise FileNotFoundError(f"There is no folder {found}: put the data set there, or say where it lies (--root, --folder).")
    return found


def read_captioned(key: str, root: str, folder: str = "") -> list[Captioned]:
    """Images of a text-person set (of `LAYOUTS`, or "orbench") with their captions, in list order; files may be missing."""
    home = find_folder(key, root, folder)
    if key == ORBENCH:
        file, image_key, images = home / _TRAIN_LIST, "file_path", home
    else:
        layout = LAYOUTS[key]
        file = next((home / name for name in layout.lists if (home / name).is_file()), home / layout.lists[0])
        image_key, images = layout.image_key, home / layout.images
    if not file.is_file():
        raise FileNotFoundError(f"{home} has no {file.name}, the list of its images and captions.")
    entries: list[dict[str, Any]] = checked(read_json(file), list[dict[str, Any]], str(file))
    found = []
    for number, entry in enumerate(entries, start=1):
        said = entry.get("captions", entry.get("caption"))
        captions: Any = [said] if isinstance(said, str) else said
        path, pid, split = entry.get(image_key), entry.get("id"), entry.get("split", "train")
        texts = isinstance(captions, list) and all(isinstance(text, str) for text in captions)
        if not (isinstance(path, str) and isinstance(pid, int) and pid is not True and isinstance(split, str) and texts):
            raise JsonError(
                f"{file}, entry {number}: {image_key} is {kind_of(path)}, id {kind_of(pid)}, split {kind_of(split)}, captions "
                f"{kind_of(said)}; expected a text, a whole number, a text and texts."
            )
        found.append(Captioned(str(images / path), pid, split, tuple(text.strip() for text in captions if not is_blank(text))))
    if not found:
        raise JsonError(f"{file} lists no image.")
    return found


def read_query_lists(root: str, folder: str = "") -> QueryLists:
    """ORBench's test: {RGB_GALLERY: [[person, path]], NIR, TEXT, NIR+TEXT, TEXT+NIR ...: [[person, path or sentence ...]]}.

    The order of a list's parts belongs to its protocol: TEXT+NIR begins with other sentences than NIR+TEXT pairs.
    """
    home = find_folder(ORBENCH, root, folder)
    file = home / _TEST_LIST
    if not file.is_file():
        raise FileNotFoundError(f"{home} has no {_TEST_LIST}, its gallery and queries.")
    lists: dict[str, list[list[int | str]]] = checked(read_json(file), dict[str, list[list[int | str]]], str(file))
    if not lists.get(_GALLERY):
        raise JsonError(f"{file} has no {_GALLERY} (it has {', '.join(lists) or 'nothing'}), so there is nothing to search.")
    gallery = [(pid, str(home / path)) for pid, path in _entries(lists[_GALLERY], (_GALLERY,), file)]
    queries: dict[str, list[ListQuery]] = {}
    left_out: dict[str, int] = {}
    for name, entries in lists.items():
        parts = name.split("+")
        if name == _GALLERY:
            continue
        if not set(parts) <= set(_PARTS):
            left_out[name] = len(entries)
            continue
        queries[name] = []
        for pid, *given in _entries(entries, tuple(parts), file):
            by = dict(zip(parts, given, strict=True))
            infrared = str(home / by["NIR"]) if "NIR" in by else ""
            queries[name].append(ListQuery(int(pid), infrared, by.get("TEXT", "")))
    return QueryLists(home, gallery, queries, left_out)


def _entries(entries: Sequence[Sequence[int | str]], parts: tuple[str, ...], file: Path) -> list[Any]:
    for number, entry in enumerate(entries, start=1):
        kinds = [type(part) for part in entry]
        if kinds != [int, *[str] * len(parts)]:
            wanted = ", ".join(("person", *parts))
            raise JsonError(f"{file}, {'+'.join(parts)}, entry {number} is {str(list(entry))[:60]}; expected [{wanted}].")
    return list(entries)


def counts_of(images: Sequence[Captioned]) -> dict[tuple[str, str], int]:
    """(split, what) -> number: identities, images, captions, images without any."""
    found: Counter[tuple[str, str]] = Counter()
    for split in dict.fromkeys(image.split for image in images):
        some = [image for image in images if image.split == split]
        found[split, "ids"] = len({image.pid for image in some})
        found[split, "RGB"] = len(some)
        found[split, "RGB texts"] = sum(bool(image.captions) for image in some)
        found[split, "texts"] = sum(len(image.captions) for image in some)
    return dict(found)
