"""LLCM: training lists `idx/train_{vis,nir}.txt`; tests in `test_{vis,nir}/camC/PPPP/f`, ids in `idx/test_id.txt`."""

import os
import re
from typing import ClassVar

from fastreid.data.datasets import DATASET_REGISTRY

from tvilfm_plugin.data.datasets.base import Split, TriDataset
from tvilfm_plugin.data.datasets.listing import list_images, person_of, read_ids, read_list, require_file
from tvilfm_plugin.data.items import EvalSetting, Item
from tvilfm_plugin.evaluation.protocols import LLCM
from tvilfm_plugin.modality import Modality

CAMERAS = {"vis": tuple(range(1, 10)), "nir": (1, 2, 4, 5, 6, 7, 8, 9)}


@DATASET_REGISTRY.register()
class TriLLCM(TriDataset):
    """LLCM with captions, both directions; one setting "all", one gallery image per (identity, camera)."""

    name = "Tri-LLCM"
    key = "llcm"
    folders: ClassVar[tuple[str, ...]] = ("LLCM", "llcm")
    protocol = LLCM
    # A test image's caption is filed without its camera: test_nir/camC/PPPP/f under nir/PPPP/f.
    pattern = re.compile(r"(?:^|/)(?:test_)?(?P<kind>vis|nir)/(?:cam\d+/)?(?P<rest>\d+/[^/]+)$")
    layout = "vis/0001/name.jpg or test_nir/cam1/0001/name.jpg"

    @classmethod
    def caption_key(cls, match: re.Match[str]) -> str:
        return f"{match.group('kind')}/{match.group('rest')}"

    @classmethod
    def read_split(cls, dataset_dir: str, split: str, trial: int = 1) -> Split:
        if split == "train":
            rgb, ir = (cls._listed(dataset_dir, kind) for kind in ("vis", "nir"))
            return Split(rgb, ir, sorted({person_of(item.path) for item in [*rgb, *ir]}))
        ids = read_ids(require_file(dataset_dir, "idx", "test_id.txt"))
        rgb, ir = (
            [
                Item(path, pid, camid)
                for pid in ids
                for camid in CAMERAS[kind]
                for path in list_images(os.path.join(dataset_dir, f"test_{kind}", f"cam{camid}", f"{pid:04d}"))
            ]
            for kind in ("vis", "nir")
        )
        return Split(rgb, ir, ids)

    @classmethod
    def _listed(cls, dataset_dir: str, kind: str) -> list[Item]:
        items = []
        for path, label in read_list(require_file(dataset_dir, "idx", f"train_{kind}.txt")):
            cls.relative(path)  # names the line's path if it is none of the layout
            # Training folders have no camera level; the file name says it (0001_c03_s...jpg).
            camera = re.search(r"_c(\d+)_", os.path.basename(path))
            items.append(Item(os.path.join(dataset_dir, path), label, int(camera.group(1)) if camera else 0))
        return items

    def _draw_settings(self, candidates: list[Item], draws: int) -> tuple[list[Item], list[EvalSetting]]:
        kind = "vis" if self.gallery_modality is Modality.RGB else "nir"
        return self._union_of_draws(candidates, [("all", CAMERAS[kind], 1)], draws)
