"""Captions by image and by person, read from the released files as they are."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from tvilfm_plugin.files.arrays import read_array
from tvilfm_plugin.files.json import checked, expect_object, kind_of, read_json, shorten
from tvilfm_plugin.files.text import is_blank, is_nothing, is_number

logger = logging.getLogger("fastreid." + __name__)

NOTHING = "a text that says that there is none"

PathLike = str | os.PathLike[str]


class Caption(NamedTuple):
    """The text of one image; `rephrase` is "" if there is none."""

    text: str
    rephrase: str = ""


class CaptionBank:
    """Captions by path relative to the data-set root, and, if known, the list of every person's captions.

    Args:
        source: where they come from; errors name it.
        persons: identity -> its captions, for the text draws of test queries.
        persons_source: where `persons` come from; defaults to `source`.
        left_out: (file, why) -> entries that are no captions.
    """

    def __init__(
        self,
        captions: Mapping[str, Caption],
        source: str,
        persons: Mapping[int, Sequence[Caption]] | None = None,
        persons_source: str = "",
        left_out: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        self._captions = dict(captions)
        self.left_out = Counter(left_out)
        self.source = source
        self._persons = None if persons is None else {pid: tuple(texts) for pid, texts in persons.items()}
        self.persons_source = persons_source or source

    @classmethod
    def from_files(
        cls, caption_dict: PathLike | None, llm_dict: PathLike | None, id_map: PathLike | None, relative: Callable[[str], str]
    ) -> "CaptionBank":
        """Read the released JSON files; any of them may be None, but not all.

        Args:
            caption_dict: image path -> {"description"[, "aug_description"]}.
            llm_dict: the same with the rephrase as "aug_description"; its description counts where `caption_dict`
                has none.
            id_map: identity -> list of captions.
            relative: strips the prefix that the file's author had in front of a path; raises ValueError for what is no
                image of the data set.
        """
        files = [Path(file) for file in (caption_dict, llm_dict, id_map) if file is not None]
        if not files:
            raise ValueError("No caption file given: name a caption dict, a dict with rephrases or an identity map.")
        captions: dict[str, Caption] = {}
        left_out: Counter[tuple[str, str]] = Counter()
        for file in (caption_dict, llm_dict):
            if file is None:
                continue
            for key, (text, rephrase) in _read_descriptions(Path(file), relative, left_out).items():
                known = captions.get(key, Caption(""))
                captions[key] = Caption(known.text or text, known.rephrase or rephrase)
        persons = None if id_map is None else _read_persons(Path(id_map), left_out)
        # An image with a rephrase but without a description has no caption.
        captions = {key: caption for key, caption in captions.items() if caption.text}
        source = ", ".join(str(file) for file in files)
        return cls(captions, source, persons, str(id_map) if id_map is not None else "", left_out)

    def __getitem__(self, path: str) -> Caption:
        try:
            return self._captions[path]
        except KeyError:
            raise KeyError(
                f"No caption for {path!r} in {self.source} ({len(self)} captions). Run `tvilfm data check` to list "
                "every image without one, or check that paths are relative to the data-set root."
            ) from None

    def __contains__(self, path: object) -> bool:
        return path in self._captions

    def __len__(self) -> int:
        return len(self._captions)

    def __iter__(self) -> Iterator[str]:
        return iter(self._captions)

    @property
    def persons(self) -> Mapping[int, Sequence[Caption]] | None:
        """Identity -> captions, or None if the bank knows no persons."""
        return self._persons

    def of_person(self, pid: int) -> Sequence[Caption]:
        """The captions of one identity, in the order of the file (draws by index depend on it)."""
        if self._persons is None:
            raise KeyError(
                f"{self.source} has captions by image only, none by person. Add an id_caption_map_*.json, or give "
                "CaptionBank its `persons`."
            )
        try:
            return self._persons[pid]
        except KeyError:
            raise KeyError(
                f"No captions of identity {pid} in {self.persons_source} ({len(self._persons)} identities, keyed by "
                "folder number)."
            ) from None

    def grouped_by(self, person_of: Callable[[str], int | None]) -> "CaptionBank":
        """The same in lists by person: in path order, without rephrases, each text once; a person None is left out."""
        persons: dict[int, dict[str, Caption]] = {}
        for path in sorted(self._captions):
            if (pid := person_of(path)) is not None:
                text = self._captions[path].text
                persons.setdefault(pid, {}).setdefault(text, Caption(text))
        listed = {pid: list(said.values()) for pid, said in persons.items()}
        return CaptionBank(self._captions, self.source, listed, "captions in path order", self.left_out)

    def completed_by(self, other: "CaptionBank") -> "CaptionBank":
        """This bank with the other's text or rephrase wherever its own is missing."""
        merged = dict(other._captions)
        for key, own in self._captions.items():
            there = other._captions.get(key, Caption(""))
            merged[key] = Caption(own.text or there.text, own.rephrase or there.rephrase)
        listed = other if self._persons is None else self
        source, left_out = f"{self.source}, {other.source}", self.left_out + other.left_out
        return CaptionBank(merged, source, listed._persons, listed.persons_source, left_out)


def array_captions(
    orders: Sequence[Sequence[str]],
    pids: Callable[[str], int],
    text_file: PathLike,
    rephrase_file: PathLike | None = None,
    label_file: PathLike | None = None,
    known: CaptionBank | None = None,
) -> CaptionBank:
    """Captions that are stored without names, as plain unicode arrays in the order of the training files.

    Args:
        orders: the orders that the files may have been sorted in, each a list of N relative paths, likeliest first.
        pids: identity of a relative path.
        text_file: (N,) array of descriptions.
        rephrase_file: (N,) array of rephrases.
        label_file: (N,) integer array, one label per identity (of any numbering): it tells which order is meant.
        known: captions that are known by name; an order that contradicts them is not meant.

    Returns:
        a bank without persons.
    """
    left_out: Counter[tuple[str, str]] = Counter()
    texts = _read_strings(Path(text_file), left_out)
    rephrases = [""] * len(texts) if rephrase_file is None else _read_strings(Path(rephrase_file), left_out)
    labels = None if label_file is None else read_array(label_file).reshape(-1)
    for file, array in ((text_file, texts), (rephrase_file, rephrases), (label_file, labels)):
        if array is not None and len(array) != len(orders[0]):
            raise ValueError(
                f"{file} has {len(array)} entries, but the training split has {len(orders[0])} images: without names "
                "they cannot be matched. Complete the images, or use the caption_dict_*.json files."
            )
    for order in orders:
        if labels is not None and not _same_grouping(labels, np.array([pids(path) for path in order])):
            continue
        by_name = [(known[path].text, text) for path, text in zip(order, texts, strict=True) if known and path in known]
        if any(a != b for a, b in by_name):
            continue
        captions = {p: Caption(t, r) for p, t, r in zip(order, texts, rephrases, strict=True) if t}
        return CaptionBank(captions, str(text_file), left_out=left_out)
    against = [str(file) for file in (label_file, known and known.source) if file]
    raise ValueError(
        f"{text_file} follows none of the {len(orders)} known orders of the training files ({' and '.join(against)} "
        "contradict them). Complete the images, or use the caption_dict_*.json files."
    )


def _same_grouping(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label arrays are equal up to an order-keeping renumbering."""
    return bool(np.array_equal(np.unique(a, return_inverse=True)[1], np.unique(b, return_inverse=True)[1]))


def _read_strings(file: Path, left_out: Counter[tuple[str, str]]) -> list[str]:
    array = read_array(file)
    if array.dtype.kind != "U":
        raise ValueError(f"{file} holds {array.dtype}, not plain unicode strings.")
    texts = [str(text) for text in array.reshape(-1)]
    _say_nothing(file, [f"{shorten(text)} in place {n}" for n, text in enumerate(texts) if is_nothing(text)], left_out)
    return list(map(_stripped, texts))


def _stripped(text: str) -> str:
    return "" if is_blank(text) or is_nothing(text) else text.strip()


class _Entry(TypedDict, total=False):
    """What a caption file says of an image; further keys are not looked at."""

    description: str | None
    aug_description: str | None


def _read_descriptions(
    file: Path, relative: Callable[[str], str], left_out: Counter[tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    content = expect_object(read_json(file), str(file))
    content = {path: {"description": entry} if isinstance(entry, str) else entry for path, entry in content.items()}
    captions: dict[str, tuple[str, str]] = {}
    differing: list[str] = []
    nothing: list[str] = []
    entries: dict[str, _Entry] = checked(content, dict[str, _Entry], str(file))
    for path, fields in entries.items():
        if not fields:
            raise ValueError(f"{file}: the entry of {shorten(path)} has no 'description' and no 'aug_description'.")
        try:
            key = relative(path)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        said = (fields.get("description") or "", fields.get("aug_description") or "")
        text, rephrase = map(_stripped, said)
        nothing += [f"{shorten(one)} of {shorten(path)}" for one in said if is_nothing(one)]
        # Two keys of one image (other prefixes): the first counts, as for every later file.
        first = captions.get(key, ("", ""))
        if first[0] and text and text != first[0]:
            differing.append(path)
        captions[key] = (first[0] or text, first[1] or rephrase)
    _say_nothing(file, nothing, left_out)
    if differing:
        left_out[str(file), "another text of an image, under another prefix"] += len(differing)
        logger.warning(
            f"{file} describes {len(differing)} images twice, differently, under keys with other prefixes (e.g. "
            f"{differing[0]!r}); the first text counts."
        )
    return captions


def _say_nothing(file: Path, nothing: Sequence[str], left_out: Counter[tuple[str, str]]) -> None:
    """Texts that say that there is none, as programs write an empty cell, are none; they are counted."""
    if nothing:
        left_out[str(file), NOTHING] += len(nothing)
        logger.warning(f"{file}: {len(nothing)} texts say that there is none and are left out (e.g. {nothing[0]}).")


def _read_persons(file: Path, left_out: Counter[tuple[str, str]]) -> dict[int, list[Caption]]:
    content = expect_object(read_json(file), str(file))
    persons: dict[int, list[Caption]] = {}
    keys: dict[int, str] = {}
    for identity, texts in content.items():
        name = identity.strip()
        if not is_number(name) or not isinstance(texts, list):
            found = f"{shorten(identity)}: {shorten(texts)}"
            raise ValueError(f"{file}: expected identity number -> list of captions, found {found}.")
        if keys.setdefault(int(name), identity) != identity:
            raise ValueError(f"{file} has identity {int(name)} twice, as {keys[int(name)]!r} and as {identity!r}; keep one.")
    strange: list[str] = []
    nothing: list[str] = []
    for identity, said in content.items():
        # Where images have several captions each, a person's list may be one of lists. Draws by index need the order of the
        # file and every text as it is: no stripping, no dropping of empty ones.
        entries = [one for entry in said for one in (entry if isinstance(entry, list) else [entry])]
        no_texts = [one for one in entries if not isinstance(one, str)]
        left_out.update((str(file), f"{kind_of(one)} in the place of a text") for one in no_texts)
        strange += [f"{shorten(one)} of {shorten(identity)}" for one in no_texts]
        nothing += [f"{shorten(one)} of {shorten(identity)}" for one in entries if isinstance(one, str) and is_nothing(one)]
        if texts := [Caption(one) for one in entries if isinstance(one, str) and not is_nothing(one)]:
            persons[int(identity)] = texts
    _say_nothing(file, nothing, left_out)
    if strange:
        logger.warning(f"{file}: {len(strange)} entries are no texts and left out (e.g. {strange[0]}).")
    return persons
