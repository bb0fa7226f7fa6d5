"""The files beside the images: lists, captions and tables of each layout, the truth, and what a reader should know."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.synthetic.captioning import SAID, Statement
from tvilfm_plugin.synthetic.ceilings import ceilings
from tvilfm_plugin.synthetic.materials import Slot
from tvilfm_plugin.synthetic.photos import Photo
from tvilfm_plugin.synthetic.plans import Identities, Shot, Spec, spec_of

_TRIALS = 10


def write_lists(spec: Spec, root: Path, drawn: Identities, shots: Sequence[Shot]) -> None:
    train_ids = [pid for pid in drawn.people if pid not in set(drawn.test_ids)]
    if spec.layout == "sysu":
        (root / "exp").mkdir()
        held = max(1, len(train_ids) // 8) if len(train_ids) > 1 else 0
        parts = {"train": train_ids[held:], "val": train_ids[:held], "test": drawn.test_ids}
        for name, ids in parts.items():
            write_text(root / "exp" / f"{name}_id.txt", ",".join(map(str, ids)) + "\n")
        return
    (root / "idx").mkdir()
    if spec.layout == "llcm":
        labels = {pid: n for n, pid in enumerate(train_ids)}
        for kind, infrared in (("vis", False), ("nir", True)):
            chosen = [shot for shot in shots if shot.pid in labels and shot.camera.infrared is infrared]
            _write_list(root / "idx" / f"train_{kind}.txt", chosen, labels)
        write_text(root / "idx" / "test_id.txt", ",".join(map(str, drawn.test_ids)) + "\n")
        return
    for trial in range(1, _TRIALS + 1):
        test = set(drawn.test_ids) if trial == 1 else _draw_test_blocks(drawn, spec, trial)
        for split, ids in (("train", sorted(set(drawn.people) - test)), ("test", sorted(test))):
            labels = {pid: n for n, pid in enumerate(ids)}
            for kind, infrared in (("visible", False), ("thermal", True)):
                chosen = [shot for shot in shots if shot.pid in labels and shot.camera.infrared is infrared]
                _write_list(root / "idx" / f"{split}_{kind}_{trial}.txt", chosen, labels)


def write_tables(root: Path, photos: Sequence[Photo]) -> None:
    """Own data twice: everything in table.csv, and what the folders do not say in captions.csv."""
    rows = []
    for photo in photos:
        split, modality, identity, camera, _ = photo.shot.path.split("/")
        rows.append([photo.shot.path, identity, camera, modality, split, photo.text, photo.rephrase])
    columns = ["path", "identity", "camera", "modality", "split", "caption", "rephrase"]
    for name, kept in (("table", columns), ("captions", ["path", "caption", "rephrase"])):
        with open(root / f"{name}.csv", "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(kept)
            writer.writerows([row[columns.index(column)] for column in kept] for row in rows)


def _write_list(file: Path, shots: Iterable[Shot], labels: Mapping[int, int]) -> None:
    write_text(file, "".join(f"{shot.path} {labels[shot.pid]}\n" for shot in shots))


def _draw_test_blocks(drawn: Identities, spec: Spec, trial: int) -> set[int]:
    """Identities of whole blocks that are together as many as the test people."""
    blocks: dict[int, list[int]] = {}
    for pid, person in drawn.people.items():
        blocks.setdefault(person.block, []).append(pid)
    order = sorted(blocks)
    random.Random(f"trial/{spec.seed}/{trial}").shuffle(order)
    reached: dict[int, tuple[int, ...]] = {0: ()}  # number of people -> blocks that make it up
    for block in order:
        for total, chosen in list(reached.items()):
            reached.setdefault(total + len(blocks[block]), (*chosen, block))
        if len(drawn.test_ids) in reached:
            break
    return {pid for block in reached[len(drawn.test_ids)] for pid in blocks[block]}


def write_captions(layout: str, folder: Path, name: str, photos: Sequence[Photo]) -> None:
    folder.mkdir(parents=True)
    prefix = f"datasets/{layout}"
    plain = {f"{prefix}/{photo.shot.caption_path}": {"description": photo.text} for photo in photos}
    both = {
        f"{prefix}/{photo.shot.caption_path}": {"description": photo.text, "aug_description": photo.rephrase}
        for photo in photos
    }
    by_person: dict[str, list[str]] = {}
    for photo in photos:
        texts = by_person.setdefault(str(photo.shot.pid), [])
        if photo.text not in texts:  # the released lists name a text once
            texts.append(photo.text)
    write_json(folder / f"caption_dict_{name}.json", plain)
    write_json(folder / f"caption_llm_dict_{name}.json", both)
    write_json(folder / f"id_caption_map_{name}.json", by_person)


def write_views(root: Path, photos: Sequence[Photo]) -> None:
    """The annotations' table: camera, turn and areas of each image, and what the numbers in the masks mean."""
    table = {
        "slots": {slot.name.lower(): int(slot) for slot in Slot},
        "images": {photo.shot.path: photo.view for photo in photos},
    }
    write_json(root / "annotations" / "views.json", table, indent=None)


def write_json(file: Path, content: object, indent: int | None = 1) -> None:
    write_text(file, json.dumps(content, indent=indent) + "\n")


# --- truth ------------------------------------------------------------------------------------------------------------


def facts_of(spec: Spec, drawn: Identities, photos: Sequence[Photo]) -> dict[str, Any]:
    """What was drawn and what was said of it: the truth that captioning and retrieval can be scored against."""
    test_ids = set(drawn.test_ids)
    people = {}
    for pid, person in drawn.people.items():
        palette = asdict(person.palette)
        del palette["shades"]
        people[str(pid)] = {
            "split": "test" if pid in test_ids else "train",
            "block": person.block,
            "shape": asdict(person.shape),
            "palette": palette,
        }
    images = {}
    for photo in photos:
        look, statement = photo.look, photo.statement
        images[photo.shot.path] = {
            "identity": photo.shot.pid,
            "view": ("back" if look.pose.back else "front") + {-1: ", turned left", 0: "", 1: ", turned right"}[look.pose.turn],
            "light": look.light,
            "hidden": sorted(look.hidden),
            "seen": look.seen,
            "said": dict(statement.said),
            "wrong": list(statement.wrong),
            "missing": list(statement.missing),
        }
    queries: dict[int, list[Statement]] = {}
    # Enough captions for a stable figure; the cost grows with the square of the number of people.
    per_person = max(1, min(6, 40_000 // len(test_ids) ** 2))
    for photo in photos:
        if photo.shot.pid in test_ids and not photo.shot.camera.infrared:
            queries.setdefault(photo.shot.pid, []).append(photo.statement)
    queries = {pid: statements[:: max(1, len(statements) // per_person)] for pid, statements in queries.items()}
    return {
        "synthetic": True,
        "spec": spec_of(spec),
        "attributes": list(SAID),
        "rates": {
            name: error_rates([p.statement for p in photos if p.shot.camera.infrared is infrared])
            for name, infrared in (("rgb", False), ("ir", True))
        },
        "ceilings": ceilings({pid: drawn.people[pid] for pid in drawn.test_ids}, queries)._asdict(),
        "people": people,
        "images": images,
    }


def error_rates(statements: Sequence[Statement]) -> dict[str, float]:
    """Share of the named attributes that is named wrongly, and of the nameable ones that is left out."""
    said = sum(len(s.said) for s in statements)
    left_out = sum(len(s.missing) for s in statements)
    return {
        "wrong": round(sum(len(s.wrong) for s in statements) / max(1, said), 4),
        "missing": round(left_out / max(1, said + left_out), 4),
    }


def readme(spec: Spec, facts: Mapping[str, Any]) -> str:
    rates, limits = facts["rates"], facts["ceilings"]
    chosen = {name.replace("_", "-"): value for name, value in asdict(spec).items()}
    options = " ".join(
        f"--{name}" if value is True else f"--{name} {value}" for name, value in chosen.items() if value is not False
    )
    return f"""# Synthetic people in the layout of {spec.layout}

Nobody in these pictures exists: every image and every caption was drawn by a program
(`tvilfm data make {options}`). They show whether a method works and how fast; results on them say nothing
about real people, and must be called synthetic wherever they are shown. Bodies: MakeHuman/MPFB2 base mesh (CC0).

- {spec.ids} people, {spec.test_ids} of them for testing; images of {spec.height} x {spec.height // 2} pixels. Some of the
  people: `people.png`.
- People stand on a grid: two or three share a shape and differ in all colours, two or three share all colours and differ in
  shape. Infrared images do not show colours, captions seldom tell the shapes of one grid apart.
- Captions err: of the attributes that visible images' captions name, {rates["rgb"]["wrong"]:.1%} are wrong, and
  {rates["rgb"]["missing"]:.1%} of those that they could name are missing (infrared: {rates["ir"]["wrong"]:.1%} and
  {rates["ir"]["missing"]:.1%}). Errors belong to the image: what too few of its pixels show is not mentioned, a colour that the
  light falsifies is named as it looks there.
- Rank-1 on the test people: by chance {limits["chance"]:.1%}; a perfect reader of shapes {limits["shape"]:.1%}, of one caption
  {limits["caption"]:.1%}, of both {limits["both"]:.1%}.
- `Text/human_phrases.txt` has one phrase per identity for text source `human`: what a passer-by noted, no less wrong.
- `attributes.json` holds the truth: each person's shape and palette; for each image its view, what is hidden, which colours its
  light falsifies, and what its caption says, says wrongly and leaves out.
"""
