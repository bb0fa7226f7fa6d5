"""Own data: a table of images, or folders that say who is on them. How to make either: docs/own_data.md."""

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fastreid.data.datasets import DATASET_REGISTRY

from tvilfm_plugin.data.captions import Caption, CaptionBank
from tvilfm_plugin.data.datasets.base import Split, TriDataset
from tvilfm_plugin.data.datasets.listing import caption_folders, find_one
from tvilfm_plugin.data.image_table import (
    SUFFIXES,
    ImageTable,
    camera_numbers,
    find_table,
    identity_number,
    read_table,
    scan_folder,
)
from tvilfm_plugin.data.items import EvalSetting, Item
from tvilfm_plugin.evaluation.protocols import LLCM, PROTOCOLS
from tvilfm_plugin.files.listing import in_lines
from tvilfm_plugin.files.places import relative
from tvilfm_plugin.files.text import is_number
from tvilfm_plugin.modality import Modality

SHOWN = 5
# (kind, folder) -> what is listed there, within `TriTable.read_once`.
_HELD: dict[tuple[str, str], ImageTable] = {}


@DATASET_REGISTRY.register()
class TriTable(TriDataset):
    """The images that `table.csv` (.jsonl, .parquet) lists, see `image_table.REQUIRED` and `OPTIONAL` for its columns.

    One setting: "all" with seeded draws of one image per (identity, camera), "all-10shot" with ten, or "every-image".
    Identities that are no whole numbers get one from their name (`identity_number`).

    Attributes:
        cameras: name of a camera in the table -> its number.
    """

    name = "Own table"
    key = "table"
    folders: ClassVar[tuple[str, ...]] = ("own",)
    protocol = LLCM
    rules = tuple(PROTOCOLS)
    splits = ("train", "fit", "val", "test")
    layout = "the table's"
    whole_gallery = "every test image"

    def __init__(self, root: str = "datasets", folder: str = "", **kwargs: Any) -> None:
        with self.read_once(self.find_folder(root, folder)) as table:
            super().__init__(root, folder, **kwargs)
        # Persons have numbers per data set: those of another table are other people.
        self.key = f"{type(self).key}/{Path(self.dataset_dir).name}"
        extras = [f"{table.distractors} distractors"] if table.distractors else []
        extras += [f"without {table.junk} junk images"] if table.junk else []
        self.gallery_source = ", ".join([self.gallery_source, *extras])

    # --- what it holds ------------------------------------------------------------------------------------------------

    @classmethod
    @contextlib.contextmanager
    def read_once(cls, dataset_dir: str) -> Iterator[ImageTable]:
        """What is listed, read once for all that is asked of the data set within the block."""
        _HELD[cls.key, dataset_dir] = cls._read(dataset_dir)
        try:
            yield _HELD[cls.key, dataset_dir]
        finally:
            _HELD.pop((cls.key, dataset_dir), None)

    @classmethod
    def read_rows(cls, dataset_dir: str) -> ImageTable:
        """Everything that is listed, and what is wrong with it."""
        return _HELD.get((cls.key, dataset_dir)) or cls._read(dataset_dir)

    @classmethod
    def _read(cls, dataset_dir: str) -> ImageTable:
        file = find_table(dataset_dir)
        if file is None:
            raise FileNotFoundError(
                f"{cls.name}: {dataset_dir} has no table{', table'.join(SUFFIXES)}. docs/own_data.md says what belongs in it; "
                "pictures in folders without a table are TriFolder."
            )
        return read_table(file)

    @classmethod
    def understood(cls, dataset_dir: str) -> ImageTable:
        """The rows, if every one of them could be understood."""
        table = cls.read_rows(dataset_dir)
        if table.problems:
            raise ValueError(
                f"{cls.name}: {len(table.problems)} rows of {table.source} cannot be understood:\n"
                f"{in_lines(table.problems, SHOWN)}\n"
                f"`tvilfm data check --dataset {cls.key} --folder {Path(dataset_dir).name}` explains them all."
            )
        return table

    @classmethod
    def read_split(cls, dataset_dir: str, split: str, trial: int = 1) -> Split:
        wanted = {"train": ("train", "val"), "fit": ("train",)}.get(split, (split,))
        table = cls.understood(dataset_dir)
        cameras = camera_numbers([row.camera for row in table.rows])
        found: dict[Modality, list[Item]] = {Modality.RGB: [], Modality.IR: []}
        names: dict[int, str] = {}
        for row in table.rows:
            if row.split not in wanted:
                continue
            pid = identity_number(row.identity)
            if names.setdefault(pid, row.identity) != row.identity and not is_number(row.identity):
                raise ValueError(f"{row.where}: {row.identity!r} and {names[pid]!r} get the same number {pid}; rename one.")
            found[row.modality].append(Item(os.path.join(dataset_dir, row.path), pid, cameras[row.camera]))
        return Split(found[Modality.RGB], found[Modality.IR], sorted(names))

    @classmethod
    def person(cls, item: Item) -> int:
        return item.pid

    @classmethod
    def relative_in(cls, dataset_dir: str) -> Callable[[str], str]:
        return partial(relative_to, dataset_dir)

    def relative(self, path: str) -> str:  # type: ignore[override]  # a table's keys depend on where its folder is
        return relative_to(self.dataset_dir, path)

    @classmethod
    def read_bank(cls, dataset_dir: str, modality: Modality, train: Split) -> CaptionBank | None:
        """The table's captions; where it has none, generated ones from `Text/` (`tvilfm captions generate`)."""
        table = cls.understood(dataset_dir)
        captions: dict[str, Caption] = {}
        pids: dict[str, int] = {}
        for row in table.rows:
            if row.modality is modality:
                key = relative_to(dataset_dir, row.path)
                pids[key] = identity_number(row.identity)
                if row.caption:
                    captions[key] = Caption(row.caption, row.rephrase)
        bank = CaptionBank(captions, table.source)
        for folder in caption_folders(dataset_dir, modality):
            files = [find_one(folder, start, ".json") for start in ("caption_dict", "caption_llm_dict")]
            if any(files):
                generated = CaptionBank.from_files(files[0], files[1], None, cls.relative_in(dataset_dir))
                bank = bank.completed_by(generated)
                break
        if not len(bank):
            return None
        return bank.grouped_by(pids.get)

    # --- how it is evaluated ------------------------------------------------------------------------------------------

    def _draw_settings(self, candidates: list[Item], draws: int) -> tuple[list[Item], list[EvalSetting]]:
        if not self.shots or min(self.shots) < 0 or (0 in self.shots and len(self.shots) > 1):
            raise ValueError(
                f"{self.name}: DATASETS.SHOTS is {self.shots}; give images per (identity, camera), e.g. (1,) or (1, 10), or "
                "(0,) for one gallery of every image."
            )
        if self.shots == (0,):
            return self._every_image(candidates, "every-image")
        cameras = sorted({item.camid for item in candidates})
        variants = [("all" if shots == 1 else f"all-{shots}shot", cameras, shots) for shots in self.shots]
        return self._union_of_draws(candidates, variants, draws)


@DATASET_REGISTRY.register()
class TriFolder(TriTable):
    """The images below `train/`, `val/` and `test/`, see `image_table.LAYOUT`; texts from `captions.csv`, if there is one."""

    name = "Own folder"
    key = "folder"
    layout = "train/visible/0001/cam1/0001.jpg"

    @classmethod
    def _read(cls, dataset_dir: str) -> ImageTable:
        return scan_folder(dataset_dir)


OWN: dict[str, type[TriTable]] = {"table": TriTable, "folder": TriFolder}
"""By the name that commands give them."""


def relative_to(dataset_dir: str, path: str) -> str:
    """A path as a caption's key: relative to the data set's folder, with forward slashes, composed (NFC)."""
    path = relative(path, dataset_dir) if os.path.isabs(path) else os.path.normpath(path.replace("\\", "/"))
    return unicodedata.normalize("NFC", path.replace("\\", "/"))
