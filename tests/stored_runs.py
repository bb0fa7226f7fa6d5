"""Stored evaluations of invented features, written by the evaluator itself: no network, no images, a few dozen queries."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.data.items import EvalSetting, Item
from tvilfm_plugin.data.text_sources import QueryTexts
from tvilfm_plugin.evaluation.evaluator import MEREvaluator
from tvilfm_plugin.evaluation.mer import Parts
from tvilfm_plugin.evaluation.protocols import SYSU, Protocol
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.fusion import FilteredAdd

PEOPLE, DRAWS, DIM = 12, 3, 16
COLOURS = ("red", "blue", "green", "black", "white", "pink")


class TinyEvaluation:
    """Twelve people, four infrared images and four cameras each, three gallery draws, two text sources.

    Args:
        noise: the larger, the worse the retrieval.
        seed: of features, not of people, draws or texts, which are always the same.
    """

    def __init__(self, folder: Path | None, *, noise: float = 1.0, seed: int = 0, protocol: Protocol = SYSU, **card) -> None:
        world = np.random.default_rng(7)
        rng = np.random.default_rng([seed, 1])
        self.query_pids = np.repeat(np.arange(1, PEOPLE + 1), 4)
        # The last person is in no gallery: her queries count in nothing.
        self.gallery_pids = np.repeat(np.arange(1, PEOPLE), 8)
        query = [Item(f"ir/{n}.png", int(pid), (3, 6)[n % 2]) for n, pid in enumerate(self.query_pids)]
        gallery = [Item(f"rgb/{n}.png", int(pid), (1, 2, 4, 5)[n % 4]) for n, pid in enumerate(self.gallery_pids)]
        cells = np.arange(len(gallery)).reshape(-1, 2, 4)
        draws = tuple(
            np.take_along_axis(cells, world.integers(0, 2, (len(cells), 1, 4)), axis=1).reshape(-1) for _ in range(DRAWS)
        )
        self.strings = [
            f"a person in a {COLOURS[pid % 6]} coat, a {COLOURS[pid // 6]} hat and {COLOURS[n]} shoes."
            for pid in range(PEOPLE + 1)
            for n in range(3)
        ]
        own = ["a person in a coat."] + [f"a person number {pid} in a coat." for pid in range(1, 13)]
        texts = [self._texts(source, seed, own, world) for source, seed in (("oracle", 0), ("oracle", 1), ("self", 0))]
        code = world.normal(size=(PEOPLE + 1, DIM))
        near = lambda pids, much: torch.tensor(code[pids] + much * noise * rng.normal(size=(len(pids), DIM))).float()
        self.data = SimpleNamespace(
            name=f"Tri-{protocol.name}", direction="infrared-to-visible", query=query, gallery=gallery, protocol=protocol,
            settings=[EvalSetting("all", 1, draws)], query_modality=Modality.IR, gallery_source="seeded draws", note="",
        )  # fmt: skip
        self.cfg = get_cfg()
        self.cfg.SEED = seed
        for key, value in card.items():
            section, name = key.split("__")
            self.cfg[section][name] = value
        evaluator = MEREvaluator(self.cfg, self.data, {"all": texts}, lambda strings: None, str(folder) if folder else None)
        person = [int(t.split("number ")[1].split()[0]) if "number" in t else self._wearer(t) for t in evaluator.table]
        self.parts = Parts(near(self.query_pids, 1.0), near(self.gallery_pids, 0.6), near(np.array(person), 0.6))
        neck = torch.rand(DIM, generator=torch.Generator().manual_seed(1)) + 0.5, torch.zeros(DIM)
        self.results = evaluator.evaluate_parts(self.parts, neck, FilteredAdd(dim=DIM), weights=f"hash{seed}{noise}")
        self.folder = folder

    def _wearer(self, text: str) -> int:
        return self.strings.index(text) // 3 if text in self.strings else 0

    def _texts(self, source: str, seed: int, own: list[str], world: np.random.Generator) -> QueryTexts:
        table = tuple(dict.fromkeys([*own, *self.strings]))
        ir = np.array([table.index(own[pid]) for pid in self.query_pids])
        said = lambda pid: table.index(self.strings[3 * pid + world.integers(3)])
        rgb = np.array([[said(pid) for pid in self.query_pids] for _ in range(DRAWS)])
        return QueryTexts(source, seed, table, rgb if source != "self" else np.tile(ir, (DRAWS, 1)), ir, "")


def tiny_run(run: Path, **options) -> TinyEvaluation:
    """An evaluation in the place where a run's evaluation lies."""
    return TinyEvaluation(run / "evaluation" / "TriSYSUMM01", **options)


def add_images(run: Path) -> None:
    """Give a stored evaluation image files that can be drawn."""
    import json

    for path in run.glob("evaluation/*/results.json"):
        described = json.loads(path.read_text())
        del described["digest"]
        picture = run / "picture.png"
        Image.new("RGB", (8, 16), (90, 120, 60)).save(picture)
        for key in ("query_paths", "gallery_paths"):
            described[key] = [str(picture)] * len(described[key])
        path.write_text(json.dumps(described))


SYSTEMS = {
    "initial": {"seed": 3, "noise": 5.0},
    "stage1": {"seed": 2, "noise": 1.6},
    "baseline": {"seed": 1, "noise": 1.5, "TVILFM__FUSION": "Add"},
    "before": {"seed": 4, "noise": 3.0},
    "full": {"noise": 1.4},
}


def tiny_systems(folder: Path) -> dict[str, Path]:
    """The runs that the paper's pictures set side by side, with images: name -> output folder.

    An image is known by the last three parts of its path, so these are the same for all of them.
    """
    runs = {name: folder / name / "out" / "run" for name in SYSTEMS}
    for name, options in SYSTEMS.items():
        tiny_run(runs[name], **options)
        add_images(runs[name])
    return runs
