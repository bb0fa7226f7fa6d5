"""Small complete data sets in the true layouts, captions in the released format. Images are noise or empty files."""

import csv
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown")


def write_file(path: Path, size: tuple[int, int] | None = None) -> None:
    """An image of (width, height) with noise that depends on the name, or an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if size is None:
        path.touch()
        return
    # Camera, person and number: no two images of a tree are alike, which would tie them in every ranking.
    seed = zlib.crc32("/".join(path.parts[-3:]).encode())
    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def rgb_text(pid: int, key: str) -> str:
    """A caption with colours, another one for almost every image."""
    shade = COLOURS[sum(map(ord, key)) % len(COLOURS)]
    return f"a person in a {COLOURS[pid % len(COLOURS)]} shirt and {shade} trousers, seen as {Path(key).stem}"


def ir_text(pid: int, key: str) -> str:
    """A caption without colours."""
    return f"a person in a shirt and trousers number {pid % 13}"


def write_captions(folder: Path, kind: str, keys: dict[str, int], prefix: str, writer: Callable[[int, str], str]) -> None:
    """`caption_dict`, `caption_llm_dict` and `id_caption_map` of one modality.

    Args:
        folder: `<data set>/Text`.
        kind: "RGB" or "IR".
        keys: relative path as it stands in the file -> identity.
        prefix: what the file's author had in front of the relative paths.
    """
    target = folder / f"Blip_{kind}"
    target.mkdir(parents=True, exist_ok=True)
    texts = {key: writer(pid, key) for key, pid in keys.items()}
    persons: dict[str, list[str]] = {}
    for key, pid in keys.items():
        listed = persons.setdefault(str(pid), [])
        if texts[key] not in listed:
            listed.append(texts[key])
    files = {
        f"caption_dict_Blip_{kind}.json": {prefix + key: {"description": text} for key, text in texts.items()},
        f"caption_llm_dict_Blip_{kind}.json": {
            prefix + key: {"description": text, "aug_description": f"Rephrased: {text}"} for key, text in texts.items()
        },
        f"id_caption_map_Blip_{kind}.json": persons,
    }
    for name, content in files.items():
        (target / name).write_text(json.dumps(content), encoding="utf-8")


def write_sysu(
    root: Path,
    train_ids: Sequence[int] = (1, 4, 9),
    val_ids: Sequence[int] = (2, 7),
    test_ids: Sequence[int] = (6, 12, 25),
    per_cell: int = 3,
    size: tuple[int, int] | None = (24, 48),
    captions: bool = True,
    prefix: str = "datasets/sysu/",
    folder: str = "SYSU-MM01",
) -> Path:
    """Every identity is seen by every camera; returns the data set's folder."""
    base = root / folder
    ids = {"train": train_ids, "val": val_ids, "test": test_ids}
    (base / "exp").mkdir(parents=True, exist_ok=True)
    for name, pids in ids.items():
        (base / "exp" / f"{name}_id.txt").write_text(",".join(map(str, pids)) + "\n")
    keys: dict[str, dict[str, int]] = {"RGB": {}, "IR": {}}
    for pid in [pid for pids in ids.values() for pid in pids]:
        for camid in range(1, 7):
            for number in range(1, per_cell + 1):
                key = f"cam{camid}/{pid:04d}/{number:04d}.jpg"
                write_file(base / key, size)
                keys["IR" if camid in (3, 6) else "RGB"][key] = pid
    if captions:
        write_captions(base / "Text", "RGB", keys["RGB"], prefix, rgb_text)
        write_captions(base / "Text", "IR", keys["IR"], prefix, ir_text)
    return base


def write_regdb(
    root: Path,
    train_ids: Sequence[int] = (193, 5, 40),
    test_ids: Sequence[int] = (7, 171, 12),
    per_person: int = 4,
    size: tuple[int, int] | None = (24, 48),
    captions: bool = True,
    prefix: str = "datasets/regdb/",
    folder: str = "RegDB",
    trials: Sequence[int] = (1, 2),
) -> Path:
    """Even trials swap training and test; labels count the identities in the order given."""
    base = root / folder
    (base / "idx").mkdir(parents=True, exist_ok=True)
    keys: dict[str, dict[str, int]] = {"RGB": {}, "IR": {}}
    for pid in [*train_ids, *test_ids]:
        for number in range(per_person):
            for kind, letter, name in (("RGB", "v", "Visible"), ("IR", "t", "Thermal")):
                key = f"{name}/{pid}/male_back_{letter}_{2000 + 3 * number + pid:05d}_{pid}.bmp"
                write_file(base / key, size)
                keys[kind][key] = pid
    for trial in trials:
        halves = {"train": train_ids, "test": test_ids}
        if trial % 2 == 0:
            halves = {"train": test_ids, "test": train_ids}
        for split, pids in halves.items():
            for kind, name in (("RGB", "visible"), ("IR", "thermal")):
                lines = [f"{key} {pids.index(pid)}" for key, pid in keys[kind].items() if pid in pids]
                (base / "idx" / f"{split}_{name}_{trial}.txt").write_text("\n".join(lines) + "\n")
    if captions:
        write_captions(base / "Text", "RGB", keys["RGB"], prefix, rgb_text)
        write_captions(base / "Text", "IR", keys["IR"], prefix, ir_text)
    return base


def write_llcm(
    root: Path,
    train_ids: Sequence[int] = (1, 3, 8),
    test_ids: Sequence[int] = (703, 21, 5),
    per_cell: int = 2,
    size: tuple[int, int] | None = (24, 48),
    captions: bool = True,
    prefix: str = "/data0/someone/LLCM/",
    folder: str = "LLCM",
) -> Path:
    """Training persons in two cameras, test persons in cameras 1, 2 and 4; test captions carry the training layout."""
    base = root / folder
    (base / "idx").mkdir(parents=True, exist_ok=True)
    (base / "idx" / "test_id.txt").write_text(",".join(map(str, test_ids)) + "\n")
    keys: dict[str, dict[str, int]] = {"RGB": {}, "IR": {}}
    for kind, short in (("RGB", "vis"), ("IR", "nir")):
        lines = []
        for pid in [*train_ids, *test_ids]:
            for camid in (2, 5) if pid in train_ids else (1, 2, 4):
                for number in range(1, per_cell + 1):
                    name = f"{pid:04d}_c{camid:02d}_s{number:03d}_f{100 * number}_{short}.jpg"
                    key = f"{short}/{pid:04d}/{name}"
                    if pid in train_ids:
                        write_file(base / key, size)
                        lines.append(f"{key} {train_ids.index(pid)}")
                    else:
                        write_file(base / f"test_{short}/cam{camid}/{pid:04d}/{name}", size)
                    keys[kind][key] = pid
        (base / "idx" / f"train_{short}.txt").write_text("\n".join(lines) + "\n")
    if captions:
        write_captions(base / "Text", "RGB", keys["RGB"], prefix, rgb_text)
        write_captions(base / "Text", "IR", keys["IR"], prefix, ir_text)
    return base


def write_own(
    root: Path,
    train_ids: Sequence[str] = ("1", "4", "anna"),
    test_ids: Sequence[str] = ("6", "bert", "25"),
    per_cell: int = 2,
    size: tuple[int, int] | None = (24, 48),
    captions: bool = True,
    folder: str = "own",
) -> Path:
    """Own data as folders, as `table.csv` and with `captions.csv`; visible cameras 1 and 2, infrared camera 3."""
    base = root / folder
    rows = []
    for pid in [*train_ids, *test_ids]:
        for modality, cameras in (("visible", (1, 2)), ("infrared", (3,))):
            for camera in cameras:
                for number in range(per_cell):
                    split = "train" if pid in train_ids else "test"
                    path = f"{split}/{modality}/{pid}/{camera}/{number}.jpg"
                    write_file(base / path, size)
                    writer = rgb_text if modality == "visible" else ir_text
                    text = writer(zlib.crc32(pid.encode()), path) if captions else ""
                    rows.append([path, pid, camera, modality, split, text, text and f"Rephrased: {text}"])
    columns = ["path", "identity", "camera", "modality", "split", "caption", "rephrase"]
    for name, kept in (("table", columns), *([("captions", ["path", "caption", "rephrase"])] if captions else [])):
        with open(base / f"{name}.csv", "w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(kept)
            table.writerows([row[columns.index(column)] for column in kept] for row in rows)
    return base


def write_paths(base: Path, paths: Sequence[str]) -> None:
    """Empty files at relative paths."""
    for path in paths:
        write_file(base / path)
