"""What the Tri- data sets share: splits to training lists, gallery draws, captions, warnings and tables."""

import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from fastreid.data.datasets.bases import ImageDataset

from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.datasets.galleries import hold_out, union_of_draws
from tvilfm_plugin.data.datasets.listing import SYNTHETIC as SYNTHETIC
from tvilfm_plugin.data.datasets.listing import (
    caption_folders,
    examples,
    find_one,
    missing_files,
    person_of,
    refuse_two_people,
    repeated,
)

# What the class of a new data set needs beside `TriDataset` (docs/extending/dataset.md).
from tvilfm_plugin.data.datasets.listing import list_images as list_images
from tvilfm_plugin.data.datasets.listing import read_ids as read_ids
from tvilfm_plugin.data.datasets.listing import require_file as require_file
from tvilfm_plugin.data.datasets.sizes import test_table, train_table
from tvilfm_plugin.data.items import EvalSetting, Item, group_by_person
from tvilfm_plugin.evaluation.protocols import MIP, PROTOCOLS, Protocol
from tvilfm_plugin.modality import Modality

__all__ = ["DIRECTIONS", "EvalSetting", "Split", "TriDataset"]

logger = logging.getLogger("fastreid." + __name__)

DIRECTIONS = ("infrared-to-visible", "visible-to-infrared")
GALLERIES = ("seeded", "rand_perm_cam")
PROTOCOL_CHOICES = ("standard", "mip")


class Split(NamedTuple):
    """The images of one split, with absolute paths and the labels of the id files.

    `ids` are the persons' folder numbers as the id file names them, whether or not they have images.
    """

    rgb: list[Item]
    ir: list[Item]
    ids: list[int]

    def of(self, modality: Modality) -> list[Item]:
        """The images of one modality."""
        return self.rgb if modality is Modality.RGB else self.ir


class TriDataset(ImageDataset):
    """Visible images, infrared images and captions of the same persons.

    Args:
        root: folder that holds the data sets (fast-reid's `$FASTREID_DATASETS`).
        folder: the data set's folder below `root`; "" takes the first of `folders` that exists.
        direction: "infrared-to-visible" (with text) or "visible-to-infrared" (images only).
        trial: the train/test split of RegDB, 1..10; elsewhere ignored.
        modes: SYSU-MM01's search modes; elsewhere ignored.
        shots: images per (identity, camera) in the galleries of SYSU-MM01 and of own data; elsewhere ignored.
        draws: number of gallery draws, seeded 0, 1, ...; RegDB has one gallery.
        text: whether captions are needed; without them no caption file is opened.
        held_out: where the gallery is every image (RegDB), visible images per test identity that leave it and serve as
            witnesses.
        gallery: "seeded" draws, or on SYSU-MM01 "rand_perm_cam", those of its evaluation code's exp/rand_perm_cam.mat.
        validation: keep SYSU-MM01's validation identities out of training, so that an epoch can be chosen on them.
        split: who is searched: the "test" identities, or on SYSU-MM01 the validation identities, "val".
        protocol: "standard", the data set's own; or "mip", one gallery draw under the rules of MIP's authors. (Their draws
            are not known: their seeds number the files in no fixed order. It is the first of the standard ones here.)
        rules: name of the protocol that own data is ranked by; "" = the data set's own, which the published ones keep.

    Attributes:
        train_rgb, train_ir: training images; pids 0..K-1 in ascending label order, camid = camera number.
        train_ids: folder number of each of the K persons.
        query, gallery: test images with the folder number as pid; the gallery is the union of all draws.
        settings: what is evaluated; draws index `gallery`.
        visible_pool: every visible image of the test identities.
        captions: bank per modality; empty with `text=False`.
        note: what a result must say about this construction, or "".
        gallery_source: how the galleries were drawn, for the protocol card.
    """

    name: str
    key: str
    folders: ClassVar[tuple[str, ...]]
    protocol: Protocol
    pattern: ClassVar[re.Pattern[str]]
    layout: ClassVar[str]
    whole_gallery: ClassVar[str]
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    galleries: ClassVar[tuple[str, ...]] = ("seeded",)
    rules: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        root: str = "datasets",
        folder: str = "",
        direction: str = "infrared-to-visible",
        trial: int = 1,
        modes: Sequence[str] = ("all", "indoor"),
        shots: Sequence[int] = (1,),
        draws: int = 10,
        text: bool = True,
        held_out: int = 0,
        gallery: str = "seeded",
        validation: bool = False,
        split: str = "test",
        protocol: str = "standard",
        rules: str = "",
        verbose: bool = True,
        **kwargs: Any,
    ) -> None:
        self._check_choices(direction, draws, gallery, validation, split, protocol, rules)
        self.protocol = PROTOCOLS[rules] if rules else self.protocol
        if protocol == "mip":
            self.protocol, draws = MIP, 1
        self.dataset_name = self.name
        self.direction, self.trial, self.held_out, self.gallery_rule = direction, trial, held_out, gallery
        self.modes, self.shots = tuple(modes), tuple(shots)
        self.gallery_source = f"seeded draws 0..{draws - 1}"
        self.note = ""
        self.warnings: list[str] = []
        self.query_modality, self.gallery_modality = Modality.IR, Modality.RGB
        if direction == "visible-to-infrared":
            self.query_modality, self.gallery_modality = Modality.RGB, Modality.IR

        self.dataset_dir = self.find_folder(root, folder)
        if os.path.isfile(os.path.join(self.dataset_dir, SYNTHETIC)):
            self.name = f"synthetic ({self.name.removeprefix('Tri-')}'s layout)"
        everyone = self.read_split(self.dataset_dir, "train", trial)
        train = self.read_split(self.dataset_dir, "fit", trial) if validation else everyone
        test = self.read_split(self.dataset_dir, split, trial)
        for one in (train, test):
            refuse_two_people([*one.rgb, *one.ir])
        self._require_files([*train.rgb, *train.ir, *test.rgb, *test.ir])
        self.train_rgb, self.train_ir, self.train_ids = self._label(train)
        query, drawn = self._arrange(test, draws)
        # Released caption arrays count all training images, also those that are kept for validation.
        self.captions = self._read_captions(everyone) if text else {}
        self.name += " (validation identities)" if split == "val" else ""
        self.name += f" (protocol {protocol})" if protocol != "standard" else ""
        if verbose and self.warnings:
            logger.warning(f"{self.name} in {self.dataset_dir}: " + " ".join(self.warnings))
        super().__init__(self.train_rgb + self.train_ir, query, drawn, verbose=verbose, **kwargs)

    @classmethod
    def _check_choices(
        cls, direction: str, draws: int, gallery: str, validation: bool, split: str, protocol: str, rules: str
    ) -> None:
        if direction not in DIRECTIONS:
            raise ValueError(f"Unknown direction {direction!r}; choices are {', '.join(DIRECTIONS)}.")
        if protocol not in PROTOCOL_CHOICES:
            raise ValueError(f"TEST.PROTOCOL is {protocol!r}; choices are {', '.join(PROTOCOL_CHOICES)}.")
        if draws < 1:
            raise ValueError(f"{cls.name} needs at least one gallery draw, not draws={draws}.")
        if gallery not in cls.galleries:
            raise ValueError(
                f"{cls.name} has no gallery {gallery!r}; choices of DATASETS.GALLERY are {', '.join(cls.galleries)}."
            )
        if rules and rules not in cls.rules:
            raise ValueError(
                f"{cls.name} cannot be ranked by the rules {rules!r} (DATASETS.RULES); choices are "
                f"{', '.join(cls.rules) or 'none but its own'}."
            )
        wanted = {"train", split} | ({"fit"} if validation else set())
        if not wanted <= set(cls.splits):
            raise ValueError(
                f"{cls.name} has no validation identities (splits: {', '.join(cls.splits)}), only TriSYSUMM01 and own data "
                "have: set SOLVER.EPOCH_RULE last and TEST.SPLIT test."
            )

    # --- what a data set must say ------------------------------------------------------------------------------------
    @classmethod
    def read_split(cls, dataset_dir: str, split: str, trial: int = 1) -> Split:
        """The images that the id files name, of one of `splits`; listed images may be missing on disk."""
        raise NotImplementedError

    @classmethod
    def relative(cls, path: str) -> str:
        """The path below the data-set root that captions are keyed by, whatever precedes it."""
        match = cls.pattern.search(path.replace("\\", "/"))
        if match is None:
            raise ValueError(f"{path!r} is no image of {cls.name}; its paths end like {cls.layout}.")
        return cls.caption_key(match)

    @classmethod
    def relative_in(cls, dataset_dir: str) -> Callable[[str], str]:
        """`relative` for the data set in a folder; that of the published ones does not depend on it."""
        return cls.relative

    @classmethod
    def person(cls, item: Item) -> int:
        """Who is on an image of `read_split`, by folder number."""
        return person_of(item.path)

    @classmethod
    def caption_key(cls, match: re.Match[str]) -> str:
        """The caption key of a path that `pattern` matched from some separator on."""
        return match.group("key")

    def _draw_settings(self, candidates: list[Item], draws: int) -> tuple[list[Item], list[EvalSetting]]:
        raise NotImplementedError

    @classmethod
    def _complete_captions(cls, bank: CaptionBank | None, folder: Path, modality: Modality, train: Split) -> CaptionBank | None:
        """Captions from further files of a caption folder; the base has none."""
        return bank

    # --- shared steps ------------------------------------------------------------------------------------------------
    @classmethod
    def find_folder(cls, root: str, folder: str = "") -> str:
        """Absolute path of the data set's folder below `root`."""
        names = (folder,) if folder else cls.folders
        for name in names:
            candidate = os.path.abspath(os.path.join(root, name))
            if os.path.isdir(candidate):
                return candidate
        raise FileNotFoundError(
            f"{cls.name}: no folder {' or '.join(names)} in {os.path.abspath(root)}. Put the data set there, or point "
            "$FASTREID_DATASETS (or DATASETS.ROOT) to it."
        )

    @property
    def num_classes(self) -> int:
        """K, the number of training identities."""
        return len(self.train_ids)

    def _require_files(self, items: Sequence[Item]) -> None:
        """Raise for listed images that are missing; note those that are listed more than once."""
        if twice := repeated(item.path for item in items):
            self.warnings.append(f"{len(twice)} images are listed more than once ({examples(twice, 2)}); each line counts.")
        missing = missing_files(item.path for item in items)
        if missing:
            raise FileNotFoundError(
                f"{self.name}: {len(missing)} of {len(items)} listed images are missing in {self.dataset_dir}, e.g. "
                f"{examples(missing)}. `tvilfm data check --dataset {self.key}` names them all."
            )

    def _label(self, train: Split) -> tuple[list[Item], list[Item], list[int]]:
        """Labels 0..K-1 for the identities that have images of both kinds."""
        rgb, ir = group_by_person(train.rgb), group_by_person(train.ir)
        usable = sorted(set(rgb) & set(ir))
        if not usable:
            raise ValueError(
                f"{self.name}: no training identity in {self.dataset_dir} has visible and infrared images "
                f"({len(rgb)} have visible, {len(ir)} infrared ones). Expected paths like {self.layout}."
            )
        lonely = sorted(set(rgb) ^ set(ir))
        if lonely:
            images = sum(len(rgb.get(pid, ())) + len(ir.get(pid, ())) for pid in lonely)
            self.warnings.append(
                f"{len(lonely)} training identities with {images} images have images of one kind only "
                f"({examples(lonely)}); they form no pair and are left out."
            )
        persons = set(train.ids)
        absent = persons - {self.person(item) for item in [*train.rgb, *train.ir]}
        if absent:
            shown = examples(sorted(absent))
            self.warnings.append(f"{len(absent)} listed training identities have no image ({shown}).")
        folders = {label: {self.person(train.rgb[i]) for i in rgb[label]} for label in usable}
        mixed = [label for label in usable if {self.person(train.ir[i]) for i in ir[label]} != folders[label]]
        if mixed:
            self.warnings.append(
                f"{len(mixed)} training labels name other person folders in the visible than in the infrared list "
                f"({examples(mixed)}); the labels are taken as they are."
            )
        number = {label: k for k, label in enumerate(usable)}
        relabelled = [
            [Item(item.path, number[item.pid], item.camid) for item in items if item.pid in number]
            for items in (train.rgb, train.ir)
        ]
        return relabelled[0], relabelled[1], [min(folders[label]) for label in usable]

    def _union_of_draws(self, *drawn: Any) -> tuple[list[Item], list[EvalSetting]]:
        """`galleries.union_of_draws`, whose notes become warnings."""
        items, settings, notes = union_of_draws(*drawn)
        self.warnings += notes
        return items, settings

    def _every_image(self, candidates: list[Item], name: str) -> tuple[list[Item], list[EvalSetting]]:
        """One setting `name` with one gallery: all images of the other kind but those held out."""
        if self.held_out:
            candidates = self._hold_out(candidates)
        self.gallery_source = "every test image" + (f" but {self.held_out} per identity" if self.held_out else "")
        everything = np.arange(len(candidates), dtype=np.int64)
        return candidates, [EvalSetting(name, 0, (everything,))]

    def _hold_out(self, candidates: list[Item]) -> list[Item]:
        if self.direction != "infrared-to-visible":
            raise ValueError(
                f"held_out={self.held_out} takes images out of a visible gallery; {self.direction} has none. Use 0."
            )
        self.note = (
            f"{self.held_out} visible images per identity held out of the gallery as witnesses (seed {self.trial}): "
            f"not {self.whole_gallery}"
        )
        return hold_out(candidates, self.held_out, self.trial)

    def _arrange(self, test: Split, draws: int) -> tuple[list[Item], list[Item]]:
        """The queries, and the images that some gallery draw has; sets what is evaluated."""
        self.visible_pool = test.rgb
        query = test.of(self.query_modality)
        gallery, self.settings = self._draw_settings(test.of(self.gallery_modality), draws)
        if not query or not gallery:
            raise ValueError(
                f"{self.name}: the test split in {self.dataset_dir} has {len(query)} {self.query_modality.value} "
                f"queries and {len(gallery)} {self.gallery_modality.value} gallery images. Expected paths like "
                f"{self.layout}; `tvilfm data check --dataset {self.key}` names what is missing."
            )
        queried, findable = {item.pid for item in query}, {item.pid for item in gallery}
        absent = set(test.ids) - queried - findable
        if absent:
            self.warnings.append(f"{len(absent)} listed test identities have no image ({examples(sorted(absent))}).")
        if queried - findable:
            self.warnings.append(
                f"{len(queried - findable)} test identities have queries but no gallery image "
                f"({examples(sorted(queried - findable))}); these queries count in nothing."
            )
        both = set(self.train_ids) & queried
        if both:
            self.warnings.append(f"{len(both)} persons are in training and test ({examples(sorted(both))}).")
        return query, gallery

    def _read_captions(self, train: Split) -> dict[Modality, CaptionBank]:
        banks = {}
        for modality, kept in ((Modality.RGB, self.train_rgb), (Modality.IR, self.train_ir)):
            bank = self.read_bank(self.dataset_dir, modality, train)
            if bank is None:
                raise FileNotFoundError(
                    f"{self.name}: no caption_dict_*.json or caption_llm_dict_*.json in "
                    f"{' or '.join(str(f) for f in caption_folders(self.dataset_dir, modality))}. Put the released "
                    "captions there (own data: fill the column 'caption'), generate them (`tvilfm captions generate`), or "
                    "train without text (text=False)."
                )
            missing = [path for item in kept if (path := self.relative(item.path)) not in bank]
            if missing:
                raise ValueError(
                    f"{self.name}: {len(missing)} of {len(kept)} {modality.value} training images have no caption in "
                    f"{bank.source}, e.g. {examples(missing)}. Generate them (`tvilfm captions generate`); "
                    f"`tvilfm data check --dataset {self.key}` names them all."
                )
            banks[modality] = bank
        return banks

    @classmethod
    def read_bank(cls, dataset_dir: str, modality: Modality, train: Split) -> CaptionBank | None:
        """All captions of one modality, or None if there is no file with captions.

        Identities without a list in an id_caption_map get none; without such a file the lists are made here.
        """
        folder = next((f for f in caption_folders(dataset_dir, modality) if f.is_dir()), None)
        if folder is None:
            return None
        texts, rephrases, persons = (
            find_one(folder, start, ".json") for start in ("caption_dict", "caption_llm_dict", "id_caption_map")
        )
        bank = None
        if texts or rephrases or persons:
            bank = CaptionBank.from_files(texts, rephrases, persons, cls.relative)
        bank = cls._complete_captions(bank, folder, modality, train)
        if bank is None or (len(bank) == 0 and bank.persons is None):
            return None
        if bank.persons is None:
            bank = bank.grouped_by(person_of)
        return bank

    # --- tables ------------------------------------------------------------------------------------------------------
    def show_train(self) -> None:
        """Log the size of the training split."""
        images = {Modality.RGB: self.train_rgb, Modality.IR: self.train_ir}
        self._show(train_table(images, self.captions, self.relative))

    def show_test(self) -> None:
        """Log the size of the queries and of every setting's galleries."""
        query, gallery = (self.query_modality, self.query), (self.gallery_modality, self.gallery)
        self._show(test_table(query, gallery, self.settings))

    def _show(self, table: str) -> None:
        note = f" ({self.note})" if self.note else ""
        logger.info(f"=> Loaded {self.name}, {self.direction}{note}:\n{table}")
