"""Image-text pairs: read for fine-tuning, and made for the infrared captioner."""

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tvilfm_plugin.captioning.colour_filter import remove_colours
from tvilfm_plugin.captioning.sources import SourceSet
from tvilfm_plugin.files.json import kind_of, parse_json, read_json, shorten
from tvilfm_plugin.files.places import as_on_disk
from tvilfm_plugin.files.tables import Table, check_read
from tvilfm_plugin.files.text import is_blank, read_lines

logger = logging.getLogger(__name__)
_VALIDATION = ("val", "valid", "validation", "dev")


class TextPair(NamedTuple):
    """An image file with one or several captions; its person ("" = its folder) and its split, if the list names them."""

    image: str
    texts: tuple[str, ...]
    person: str = ""
    split: str = ""

    @property
    def group(self) -> str:
        """What is never parted: a person, by name or by folder."""
        return f"id {self.person}" if self.person else Path(self.image).parent.name


def read_pairs(file: Path, *, image_key: str = "image", text_key: str = "caption", root: Path | None = None) -> list[TextPair]:
    """Read pairs from JSON, JSONL or CSV.

    JSON holds a list of objects, or an object image -> text, texts or object (the released caption files are such).
    Captions of one image may stand in one list or in several rows. `id` and `split`, which annotation lists of
    text-person data sets have (CUHK-PEDES, ICFG-PEDES, RSTPReid), become the pair's person and split.

    Args:
        image_key: key or column of the image's path.
        text_key: key or column of the caption, or of a list of captions.
        root: what relative paths are relative to; default: the file's folder.
    """
    texts: dict[str, list[str]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for number, entry in enumerate(_entries(file, image_key, text_key), start=1):
        missing = [key for key in (image_key, text_key) if entry.get(key) in (None, "", [])]
        if missing:
            raise ValueError(
                f"{file}, entry {number} has no {' and no '.join(map(repr, missing))} (it has {', '.join(map(repr, entry))}). "
                "Name the keys or columns with --image-key and --text-key."
            )
        image, found = _image_and_texts(f"{file}, entry {number}", entry, image_key, text_key)
        said = (_name(file, number, entry, "id"), _name(file, number, entry, "split").lower())
        if facts.setdefault(image, said) != said:
            raise ValueError(
                f"{file}, entry {number}: {image} has id and split {' and '.join(map(repr, said))}, and "
                f"{' and '.join(map(repr, facts[image]))} in an earlier entry; keep one of them."
            )
        texts.setdefault(image, []).extend(text.strip() for text in found if not is_blank(text))
    if len({person for person, _ in facts.values()}) == len(facts):
        facts = {image: ("", split) for image, (_, split) in facts.items()}  # every image has its own: no person's number
    base = root if root is not None else file.parent
    pairs = [
        TextPair(str(base / place), tuple(dict.fromkeys(found)), *facts[image])
        for place, (image, found) in zip(as_on_disk(base, texts), texts.items(), strict=True)
        if found
    ]
    if not pairs:
        raise ValueError(f"{file} holds no pair.")
    missing = [pair.image for pair in pairs if not Path(pair.image).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(pairs)} images of {file} do not exist, e.g. {missing[0]}. Give --images, the folder that "
            "the paths are relative to."
        )
    return pairs


def _image_and_texts(where: str, entry: Mapping[str, Any], image_key: str, text_key: str) -> tuple[str, list[str]]:
    image, found = entry[image_key], entry[text_key]
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{where}: {text_key!r} is neither a text nor a list of texts.")
    if not isinstance(image, str):
        raise ValueError(f"{where}: {image_key!r} is {kind_of(image)}, {shorten(image)}, and no path.")
    return image, found


def _name(file: Path, number: int, entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if value is None or isinstance(value, str | int) and not isinstance(value, bool):
        return "" if value is None else str(value).strip()
    raise ValueError(f"{file}, entry {number}: {key!r} is {kind_of(value)}, {shorten(value)}; expected a name or a number.")


def _entries(file: Path, image_key: str, text_key: str) -> list[Mapping[str, Any]]:
    kind = file.suffix.lower()
    if kind == ".csv":
        table = Table(file, (), (image_key.lower(), text_key.lower()))
        names = {image_key.lower(): image_key, text_key.lower(): text_key}
        rows: list[Mapping[str, Any]] = [{names.get(key, key): value for key, value in row.items()} for _, row in table]
        check_read(file, table.problems)
        return rows
    if kind == ".jsonl":
        lines = enumerate(read_lines(file), start=1)
        content: Any = [parse_json(line, f"{file}, line {number}") for number, line in lines if line.strip()]
    elif kind == ".json":
        content = read_json(file)
    else:
        raise ValueError(f"{file}: pairs are read from .json, .jsonl and .csv files.")
    if isinstance(content, dict):
        content = [
            {image_key: image, **(entry if isinstance(entry, dict) else {text_key: entry})} for image, entry in content.items()
        ]
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{file} holds neither a list of objects nor an object of images.")
    return content


def split_pairs(pairs: Sequence[TextPair], share: float, seed: int) -> tuple[list[TextPair], list[TextPair]]:
    """Training and validation pairs; a person (a folder, where the list names no persons) is in one of them only.

    Pairs of a validation split are the validation pairs, and `share` counts for nothing; those of any other split than
    "train" are left out, and the log says how many.

    Args:
        share: of the persons, at least one of several if it is above 0.
    """
    if not 0 <= share < 1:
        raise ValueError(f"Validation share {share}: give a number from 0 to below 1.")
    declared = [pair for pair in pairs if pair.split in _VALIDATION]
    known = [pair for pair in pairs if pair.split in ("", "train", "training")]
    left = Counter(pair.split for pair in pairs) - Counter(pair.split for pair in (*declared, *known))
    if left:
        names = ", ".join(f"{count} of split {name!r}" for name, count in sorted(left.items()))
        logger.warning(f"Left out of training and validation: {names} pairs.")
    groups = sorted({pair.group for pair in known})
    held: set[str] = set()
    if share and not declared:
        if len(groups) == 1 and len(known) > 1:
            logger.warning(
                "All pairs lie in one folder and none has an id: no pairs are held back for validation. Give --validation a "
                "file of pairs."
            )
        random.Random(seed).shuffle(groups)
        held = set(groups[: max(round(len(groups) * share), min(1, len(groups) - 1))])
    parts = [pair for pair in known if pair.group not in held], [pair for pair in known if pair.group in held] + declared
    if not parts[0]:
        raise ValueError(f"A validation share of {share} leaves nothing of {len(pairs)} pairs to train on.")
    return parts


def make_ir_pairs(
    rgb: SourceSet,
    ir: SourceSet,
    captions: Mapping[str, str],
    *,
    colour_filter: str = "strict",
    per_image: int = 1,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Pair infrared images with captions of visible images of the same person, without their colours (METHOD step 2).

    Args:
        captions: caption by key, of visible images.
        colour_filter: "strict", "released", or "none" (to see what the filter is good for).
        per_image: visible captions drawn for each infrared image.

    Returns:
        one {"image": path relative to the data set, "caption": [texts]} per infrared image whose person has captions.
    """
    by_person: dict[int, list[str]] = {}
    for source in rgb.sources:
        if source.split == "train" and captions.get(source.key):
            by_person.setdefault(source.pid, []).append(captions[source.key])
    rng = random.Random(seed)
    pairs = []
    for source in ir.sources:
        if source.split != "train" or source.pid not in by_person:
            continue
        pool = by_person[source.pid]
        drawn = rng.sample(pool, min(per_image, len(pool)))
        texts = [text if colour_filter == "none" else remove_colours(text, colour_filter) for text in drawn]
        texts = [text for text in texts if text]
        if texts:
            image = Path(source.path).relative_to(ir.folder)
            pairs.append({"image": image.as_posix(), "caption": texts})
    if not pairs:
        raise ValueError(
            f"No training person of {ir.name} has both an infrared image and a visible caption "
            f"({len(captions)} captions given)."
        )
    return pairs
