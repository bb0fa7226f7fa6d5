"""Files of a data set as it is distributed: id files, lists, folders of images, caption files."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tvilfm_plugin.data.items import Item
from tvilfm_plugin.files.json import expect_object, read_json
from tvilfm_plugin.files.pictures import is_picture
from tvilfm_plugin.files.text import is_number, read_lines, read_text
from tvilfm_plugin.modality import Modality

# What our own generator leaves beside its pictures: numbers on them must not carry the real benchmark's name.
SYNTHETIC = "synthetic.json"


def population(key: str, dataset_dir: str) -> str:
    """Whose the identity numbers of a data set are: its key, or the draw of synthetic people that it shows.

    The same number is another person under another seed, and the same person in every layout.
    """
    path = os.path.join(dataset_dir, SYNTHETIC)
    if not os.path.isfile(path):
        return key
    spec = expect_object(read_json(path), path)
    return "synthetic people, " + ", ".join(f"{name} {spec.get(name)}" for name in ("seed", "ids", "test_ids"))


def person_of(path: str) -> int:
    """The person's folder number: every layout has it right above the file."""
    return int(path.replace("\\", "/").rsplit("/", 2)[-2])


def examples(values: Sequence[Any], count: int = 5) -> str:
    """The first few values, for messages."""
    return ", ".join(str(value) for value in values[:count]) + (", ..." if len(values) > count else "")


def list_images(folder: str) -> list[str]:
    """Sorted absolute paths of the images in a folder; none if there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    # Thumbs.db, .DS_Store and their like would otherwise change the seeded draws.
    names = [name for name in names if is_picture(name) and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names)]


def missing_files(paths: Iterable[str]) -> list[str]:
    """The paths that are no files; lists each folder once, since single look-ups are slow on network drives."""
    folders: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder] and not os.path.exists(path):  # some systems find a file by other spellings, too
            missing.append(path)
    return missing


def require_file(dataset_dir: str, *parts: str) -> Path:
    """The path of an id file that must exist."""
    path = Path(dataset_dir, *parts)
    if not path.is_file():
        siblings = examples(sorted(p.name for p in path.parent.glob("*")), 12) or "nothing"
        raise FileNotFoundError(
            f"Missing id file {path} (found there: {siblings}). It belongs to the data set as it is distributed."
        )
    return path


def read_ids(file: Path) -> list[int]:
    """Ascending identities of a file with comma-separated numbers."""
    fields = [field.strip() for field in re.split(r"[,\s]+", read_text(file)) if field.strip()]
    wrong = [field for field in fields if not is_number(field)]
    if wrong or not fields:
        found = examples(wrong) or "nothing"
        raise ValueError(f"{file}: expected one line of comma-separated identity numbers, found {found}.")
    return sorted({int(field) for field in fields})


def read_list(file: Path) -> list[tuple[str, int]]:
    """(path relative to the data set, label) of every line "path label"."""
    entries: list[tuple[str, int]] = []
    lines: dict[str, tuple[int, int]] = {}
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        fields = line.rsplit(maxsplit=1)
        if len(fields) != 2 or not is_number(fields[1]):
            raise ValueError(f"{file}, line {number}: expected 'path label', found {line!r}.")
        path, label = os.path.normpath(fields[0].strip().replace("\\", "/")), int(fields[1])
        first, known = lines.setdefault(path, (number, label))
        if known != label:
            raise ValueError(f"{file}, line {number}: {path} has label {label}, but {known} in line {first}; keep one.")
        entries.append((path, label))
    if not entries:
        raise ValueError(f"{file} is empty; expected lines of 'path label'.")
    return entries


def repeated(paths: Iterable[str]) -> list[str]:
    """The paths that are there more than once, each once."""
    return [path for path, count in Counter(paths).items() if count > 1]


def refuse_two_people(items: Iterable[Item]) -> None:
    """Raise where one picture is listed under two people: training would learn both, and a ranking could not be right."""
    first: dict[str, int] = {}
    both = [item for item in items if first.setdefault(item.path, item.pid) != item.pid]
    if both:
        path, other = both[0].path, both[0].pid
        raise ValueError(f"{path} is listed as person {first[path]} and as person {other} ({len(both)} such); keep one.")


def caption_folders(dataset_dir: str, modality: Modality) -> list[Path]:
    """Where captions of one modality may lie, likeliest first."""
    root, kind = Path(dataset_dir), {Modality.RGB: "RGB", Modality.IR: "IR"}[modality]
    return [
        root / "Text" / f"Blip_{kind}",
        root / "Text" / kind,
        root / f"Blip_{kind}",
        root.parent / f"{root.name.lower()}_text" / f"Blip_{kind}",
    ]


def find_one(folder: Path, start: str, suffix: str) -> Path | None:
    """The file of a folder that begins with `start`: named after the folder as the released ones, or the only one."""
    released = folder / f"{start}_{folder.name}{suffix}"
    if released.is_file():
        return released
    found = sorted(path for path in folder.glob(f"{start}*{suffix}") if path.is_file())
    if len(found) > 1:
        raise ValueError(
            f"{folder} has {len(found)} files {start}*{suffix} ({examples([path.name for path in found])}). Keep "
            f"one, or name it {released.name}."
        )
    return found[0] if found else None
