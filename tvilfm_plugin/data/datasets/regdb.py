"""RegDB: `Visible/P/f.bmp`, `Thermal/P/f.bmp`, ten train/test splits in `idx/{train,test}_{visible,thermal}_T.txt`."""

import os
import re
from typing import ClassVar

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY

from tvilfm_plugin.data.datasets.base import Split, TriDataset, examples, person_of, read_list, require_file
from tvilfm_plugin.data.items import EvalSetting, Item, group_by_person
from tvilfm_plugin.evaluation.protocols import REGDB


@DATASET_REGISTRY.register()
class TriRegDB(TriDataset):
    """RegDB with captions; one setting "trialT" with one gallery, every test image of the other kind.

    With `held_out=k`, k seeded visible images of every test identity leave the gallery: the only images from which a
    witness can describe a person without describing a gallery image.
    """

    name = "Tri-RegDB"
    key = "regdb"
    folders: ClassVar[tuple[str, ...]] = ("RegDB", "regdb")
    protocol = REGDB
    pattern = re.compile(r"(?:^|/)(?P<key>(?:Visible|Thermal)/\d+/[^/]+)$")
    layout = "Visible/1/name.bmp or Thermal/1/name.bmp"

    @classmethod
    def read_split(cls, dataset_dir: str, split: str, trial: int = 1) -> Split:
        def items(kind: str, camid: int) -> list[Item]:
            file = require_file(dataset_dir, "idx", f"{split}_{kind}_{trial}.txt")
            found = []
            for path, label in read_list(file):
                cls.relative(path)  # names the line's path if it is none of the layout
                # Labels serve training only: test identities are the folder numbers, which captions are keyed by.
                pid = label if split == "train" else person_of(path)
                found.append(Item(os.path.join(dataset_dir, path), pid, camid))
            return found

        rgb, ir = items("visible", 1), items("thermal", 0)
        return Split(rgb, ir, sorted({person_of(item.path) for item in [*rgb, *ir]}))

    def _draw_settings(self, candidates: list[Item], draws: int) -> tuple[list[Item], list[EvalSetting]]:
        if self.held_out:
            candidates = self._hold_out(candidates)
        self.gallery_source = "every test image" + (f" but {self.held_out} per identity" if self.held_out else "")
        everything = np.arange(len(candidates), dtype=np.int64)
        return candidates, [EvalSetting(f"trial{self.trial}", 0, (everything,))]

    def _hold_out(self, candidates: list[Item]) -> list[Item]:
        if self.direction != "infrared-to-visible":
            raise ValueError(
                f"held_out={self.held_out} takes images out of a visible gallery; {self.direction} has none. Use 0."
            )
        groups = group_by_person(candidates)
        small = [pid for pid, indices in groups.items() if len(indices) <= self.held_out]
        if self.held_out < 0 or small:
            raise ValueError(
                f"held_out={self.held_out} must be positive and leave every test identity a gallery image; "
                f"{len(small)} have no more visible images than that ({examples(small)})."
            )
        generator = np.random.RandomState(self.trial)
        out = {indices[k] for indices in groups.values() for k in generator.choice(len(indices), self.held_out, replace=False)}
        self.note = (
            f"{self.held_out} visible images per identity held out of the gallery as witnesses (seed {self.trial}): "
            "not the published RegDB gallery"
        )
        return [item for index, item in enumerate(candidates) if index not in out]
