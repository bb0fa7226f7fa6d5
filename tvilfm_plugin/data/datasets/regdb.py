"""RegDB: `Visible/P/f.bmp`, `Thermal/P/f.bmp`, ten train/test splits in `idx/{train,test}_{visible,thermal}_T.txt`."""

import os
import re
from typing import ClassVar

from fastreid.data.datasets import DATASET_REGISTRY

from tvilfm_plugin.data.datasets.base import Split, TriDataset
from tvilfm_plugin.data.datasets.listing import person_of, read_list, require_file
from tvilfm_plugin.data.items import EvalSetting, Item
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
    whole_gallery = "the published RegDB gallery"

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
        return self._every_image(candidates, f"trial{self.trial}")
