"""SYSU-MM01: `camC/PPPP/NNNN.jpg`, identities in `exp/{train,val,test}_id.txt`; cameras 3 and 6 are infrared."""

import functools
import re
from pathlib import Path
from typing import ClassVar

from fastreid.data.datasets import DATASET_REGISTRY

from tvilfm_plugin.data.captions import CaptionBank, array_captions
from tvilfm_plugin.data.datasets.base import GALLERIES, Split, TriDataset
from tvilfm_plugin.data.datasets.camera_permutations import CameraPermutations
from tvilfm_plugin.data.datasets.listing import find_one, list_images, person_of, read_ids, require_file
from tvilfm_plugin.data.items import EvalSetting, Item, draw_gallery
from tvilfm_plugin.evaluation.protocols import SYSU
from tvilfm_plugin.modality import Modality

RGB_CAMERAS = (1, 2, 4, 5)
IR_CAMERAS = (3, 6)
GALLERY_CAMERAS = {"all": RGB_CAMERAS, "indoor": (1, 2)}


@DATASET_REGISTRY.register()
class TriSYSUMM01(TriDataset):
    """SYSU-MM01 with captions. Training is train + val; settings "all", "indoor", multi-shot "all-10shot", ..."""

    name = "Tri-SYSU-MM01"
    key = "sysu"
    folders: ClassVar[tuple[str, ...]] = ("SYSU-MM01", "sysu")
    protocol = SYSU
    pattern = re.compile(r"(?:^|/)(?P<key>cam\d/\d{4}/[^/]+)$")
    layout = "cam1/0001/0001.jpg"
    splits = ("train", "fit", "val", "test")
    galleries = GALLERIES

    @classmethod
    def read_split(cls, dataset_dir: str, split: str, trial: int = 1) -> Split:
        names = {"train": ("train", "val"), "fit": ("train",), "val": ("val",), "test": ("test",)}[split]
        files = [require_file(dataset_dir, "exp", f"{name}_id.txt") for name in names]
        ids = sorted({pid for file in files for pid in read_ids(file)})
        rgb, ir = (
            [
                Item(path, pid, camid)
                for pid in ids
                for camid in cameras
                for path in list_images(str(Path(dataset_dir, f"cam{camid}", f"{pid:04d}")))
            ]
            for cameras in (RGB_CAMERAS, IR_CAMERAS)
        )
        return Split(rgb, ir, ids)

    def _draw_settings(self, candidates: list[Item], draws: int) -> tuple[list[Item], list[EvalSetting]]:
        if self.direction != "infrared-to-visible":
            raise ValueError(
                f"{self.name} has no published {self.direction} protocol; choose direction 'infrared-to-visible', or "
                "TriRegDB or TriLLCM, which have both."
            )
        unknown = [mode for mode in self.modes if mode not in GALLERY_CAMERAS]
        if unknown or not self.modes:
            raise ValueError(f"{self.name}: unknown modes {unknown}; choices are {', '.join(GALLERY_CAMERAS)}.")
        if not self.shots or min(self.shots) < 1:
            raise ValueError(f"{self.name}: shots {self.shots} must be positive numbers, e.g. (1,) or (1, 10).")
        variants = [
            (mode if shots == 1 else f"{mode}-{shots}shot", GALLERY_CAMERAS[mode], shots)
            for mode in self.modes
            for shots in self.shots
        ]
        draw = draw_gallery
        if self.gallery_rule == "rand_perm_cam":
            permutations = CameraPermutations.read(require_file(self.dataset_dir, "exp", "rand_perm_cam.mat"))
            draw = functools.partial(permutations.draw, candidates)
            self.gallery_source = f"exp/rand_perm_cam.mat, rows 1..{draws}"
        return self._union_of_draws(candidates, variants, draws, draw)

    @classmethod
    def _complete_captions(cls, bank: CaptionBank | None, folder: Path, modality: Modality, train: Split) -> CaptionBank | None:
        """The released training text may be arrays without names, in the order of the sorted training files."""
        text_file = find_one(folder, "train_text_Blip", ".npy") or find_one(
            folder, f"train_text_{modality.value.upper()}", ".npy"
        )
        by_identity = [cls.relative(item.path) for item in train.of(modality)]
        if text_file is None or (bank is not None and all(p in bank and bank[p].rephrase for p in by_identity)):
            return bank
        arrays = array_captions(
            [by_identity, sorted(by_identity)],
            person_of,
            text_file,
            find_one(folder, "train_llm_text", ".npy"),
            find_one(folder, "train_text_label", ".npy"),
            bank,
        )
        return arrays if bank is None else bank.completed_by(arrays)
