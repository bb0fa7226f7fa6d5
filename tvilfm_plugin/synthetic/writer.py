"""Write a synthetic benchmark to disk in the layout and with the caption files of SYSU-MM01, RegDB or LLCM, or as own data."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from tvilfm_plugin.files.writing import make_folder, write_text
from tvilfm_plugin.synthetic.croissant import croissant
from tvilfm_plugin.synthetic.listing import (
    error_rates,
    facts_of,
    readme,
    write_captions,
    write_json,
    write_lists,
    write_tables,
    write_views,
)
from tvilfm_plugin.synthetic.photos import Photo, mask_file, remembered, take, take_all
from tvilfm_plugin.synthetic.plans import GENERATOR, Identities, Shot, Spec, draw_identities, plan, spec_of
from tvilfm_plugin.synthetic.rendering import Studio
from tvilfm_plugin.synthetic.sheet import contact_sheet

__all__ = [
    "GENERATOR", "Identities", "Photo", "Shot", "Spec", "draw_identities", "error_rates", "is_made", "looks_in",
    "make_synthetic", "plan", "take",
]  # fmt: skip

_SPEC_FILE = "synthetic.json"


def make_synthetic(spec: Spec, out: str | os.PathLike[str], *, workers: int = 1, progress: bool = True) -> Path:
    """Write a benchmark to `out`, all or nothing.

    Args:
        out: folder of the data set itself (what holds cam1/, Visible/ or vis/). One that holds the same benchmark is left as
            it is, any other non-empty folder is refused.
        workers: processes that draw (they are forked; elsewhere one does).

    Returns:
        `out`, absolute.
    """
    out = Path(out).absolute()
    if is_made(spec, out):
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not the benchmark {spec_of(spec)}. Give another --out, or remove it first.")
    make_folder(out.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        partial.chmod(0o755)
        _write(spec, partial, workers, progress)
        try:
            os.rename(partial, out)
        except OSError:
            # Another process was quicker; its files are the same.
            if not is_made(spec, out):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def is_made(spec: Spec, out: Path) -> bool:
    """Whether `out` holds exactly this benchmark."""
    file = out / _SPEC_FILE
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")) == spec_of(spec)


def looks_in(out: Path) -> set[tuple[object, ...]]:
    """`Person.looks` of everyone in a benchmark on disk."""
    file = out / "attributes.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{out} is no synthetic benchmark: it has no attributes.json (`tvilfm data make` writes it)."
        )
    people = json.loads(file.read_text(encoding="utf-8"))["people"].values()
    return {(*person["shape"].values(), *person["palette"].values()) for person in people}


def _write(spec: Spec, root: Path, workers: int, progress: bool) -> None:
    drawn = draw_identities(spec)
    shots = plan(spec, drawn)
    folders = {(root / shot.path).parent for shot in shots}
    if spec.annotations:
        folders |= {mask_file(root, shot).parent for shot in shots}
    for folder in folders:
        make_folder(folder)
    photos = take_all(shots, drawn.people, spec, root, workers, progress)
    if spec.layout == "own":
        write_tables(root, photos)
    else:
        write_lists(spec, root, drawn, shots)
        for name, infrared in (("Blip_RGB", False), ("Blip_IR", True)):
            chosen = [photo for photo in photos if photo.shot.camera.infrared is infrared]
            write_captions(spec.layout, root / "Text" / name, name, chosen)
    (root / "Text").mkdir(exist_ok=True)
    phrases = "".join(f"{pid}\t{text}\n" for pid, text in remembered(drawn.people, spec))
    write_text(root / "Text" / "human_phrases.txt", phrases)
    facts = facts_of(spec, drawn, photos)
    write_json(root / "attributes.json", facts, indent=None)
    write_json(root / "croissant.json", croissant(spec, root, shots[0].path))
    if spec.annotations:
        write_views(root, photos)
    contact_sheet([drawn.people[pid] for pid in drawn.test_ids], Studio(spec.height, spec.seed)).save(root / "people.png")
    write_text(root / "README.md", readme(spec, facts))
    write_json(root / _SPEC_FILE, spec_of(spec))
