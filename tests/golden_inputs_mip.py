"""Seeded inputs behind tests/goldens/mip: weights, images, loss tensors and label lists.

As in `golden_inputs`, everything comes from numpy's legacy generator, and the order of the draws is part of the definition.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import RandomState

Array = np.ndarray
GOLDENS = Path(__file__).parent / "goldens" / "mip"
CLASSES, CAMERAS = 395, 6


# --- weights of the model, by the authors' names --------------------------------------------------------------------------
def official_weights(names: set[str] | None = None) -> dict[str, Array]:
    """Every tensor of the largest model (or those named) under the authors' names; each is seeded by its own index."""
    keys = json.loads((GOLDENS / "state_dict_keys.json").read_text())["keys"]
    return {k: weight(v["i"], k, tuple(v["shape"])) for k, v in keys.items() if names is None or k in names}


def weight(index: int, name: str, shape: tuple[int, ...]) -> Array:
    """One tensor: standard normal numbers, brought to the size that its role calls for."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    z = RandomState(20000 + index).standard_normal(shape)
    # By the end of the name, first match wins; the query ends in "prompt_embed" and libraries in "prompt_embeddings".
    by_end = {
        "running_mean": 0.1,
        "cls_token": 0.5,
        "pos_embed": 0.3,
        "sie_embed": 0.1,
        "prompt_embeddings": 0.7,
        "prompt_embed": 0.2,
        "zero_token": 0.2,
    }
    if name.endswith("running_var"):
        return (0.75 + 0.5 * np.abs(z)).astype(np.float32)
    for end, factor in by_end.items():
        if name.endswith(end):
            return (factor * z).astype(np.float32)
    if z.ndim == 4:
        z = z / np.sqrt(shape[1] * shape[2] * shape[3])
    elif name.startswith("classifier"):
        z = 0.02 * z
    elif z.ndim == 2:
        z = z * (1.2 / np.sqrt(shape[1])) if name.endswith("attn.qkv.weight") else z / np.sqrt(shape[1])
    elif name.endswith("weight"):
        z = 1.0 + 0.1 * z
    elif name.endswith("bias"):
        z = 0.05 * z
    else:
        raise KeyError(name)
    return z.astype(np.float32)


# --- images ---------------------------------------------------------------------------------------------------------------
class Images(NamedTuple):
    """A batch: modality 0 is infrared, cameras count from 0."""

    seed: int
    modality: tuple[int, ...]
    cameras: tuple[int, ...]
    pids: tuple[int, ...]


FORWARD = Images(801, (0, 1, 0, 1), (2, 0, 5, 3), (11, 11, 300, 300))
TRAIN = Images(802, (0, 0, 0, 0, 1, 1, 1, 1), (2, 5, 2, 5, 0, 1, 3, 4), (7, 7, 120, 120, 7, 7, 120, 120))


def pixels(batch: Images, height: int = 256, width: int = 128) -> Array:
    """(B, H, W, 3) uint8: coarse squares with fine noise; infrared images have three equal channels."""
    rs = RandomState(batch.seed)
    count = len(batch.modality)
    coarse = rs.uniform(0, 255, (count, height // 16, width // 16, 3))
    fine = coarse.repeat(16, axis=1).repeat(16, axis=2) + rs.uniform(-30, 30, (count, height, width, 3))
    images = np.clip(np.round(fine), 0, 255).astype(np.uint8)
    infrared = np.array(batch.modality) == 0
    images[infrared] = images[infrared][..., :1]
    return images


def normalised(images: Array) -> Array:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    half = np.float32(0.5)
    return np.ascontiguousarray(((images.astype(np.float32) / np.float32(255) - half) / half).transpose(0, 3, 1, 2))


EMBED_TOKENS = [0, 1, 10, 11, 105, 210]
BLOCK_TOKENS = [0, 1, 16, 17, 32, 33, 138, 242]
PROMPT_TOKENS = [0, 1, 7, 15]
CHANNELS = 128
LOGIT_CLASSES = [*range(48), 300, 394]


# --- losses ---------------------------------------------------------------------------------------------------------------
class LossCase(NamedTuple):
    """`images` of each identity in the batch, half of them infrared; `mixed` shuffles the rows; `gap` moves visible rows."""

    seed: int
    ids: int
    images: int
    dim: int
    scale: float
    spread: float
    classes: int
    mixed: bool = False
    gap: float = 0.0


LOSS_CASES: dict[str, LossCase | None] = {
    "a_tiny": None,
    "b_std": LossCase(901, 8, 8, 64, 1.0, 0.6, 395),
    "c_mixed": LossCase(902, 6, 4, 32, 0.5, 0.8, 20, mixed=True),
    "d_d768": LossCase(903, 4, 8, 768, 1.0, 0.3, 206),
    "e_easy": LossCase(904, 5, 6, 24, 0.7, 2.0, 30, mixed=True),
    "f_far": LossCase(905, 4, 4, 32, 12.0, 0.1, 16),
    "g_gap": LossCase(906, 4, 8, 48, 1.0, 0.5, 16, gap=3.0),
    "h_overflow": LossCase(907, 3, 4, 16, 80.0, 0.0, 9),
}


class LossInput(NamedTuple):
    """features 5 x (N, D), logits 5 x (N, K), prompt logits 10 x (N, K), labels (N,)."""

    features: list[Array]
    logits: list[Array]
    prompt_logits: list[Array]
    pids: Array
    modality: Array


def loss_input(name: str) -> LossInput:
    """The tensors of a loss case."""
    case = LOSS_CASES[name]
    if case is None:
        i = np.arange(8.0)
        first = np.stack([i, (i * i) % 7], axis=1)
        features = [first] + [first[:, ::-1] * factor for factor in (0.5, 1.0, 1.5, 2.0)]
        logits = [np.cos(np.outer(i + 1, np.arange(1, 5) * (branch + 1))) for branch in range(15)]
        pids, modality = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
        return LossInput(_single(features), _single(logits[:5]), _single(logits[5:]), pids, modality)
    rs = RandomState(case.seed)
    half = case.images // 2
    ids = rs.choice(case.classes, case.ids, replace=False)
    row = np.tile(np.repeat(np.arange(case.ids), half), 2)
    pids = ids[row].astype(np.int64)
    modality = np.repeat([0, 1], case.ids * half).astype(np.int64)
    order = rs.permutation(len(row)) if case.mixed else np.arange(len(row))
    features, logits = [], []
    for _ in range(5):
        centre = rs.standard_normal((case.ids, case.dim)) * case.spread
        values = centre[row] + rs.standard_normal((len(row), case.dim))
        values[modality == 1] += case.gap * rs.standard_normal(case.dim)
        features.append((values * case.scale)[order])
    for _ in range(15):
        scores = rs.standard_normal((len(row), case.classes)) * 1.5
        scores[np.arange(len(row)), pids] += 2.0
        logits.append(scores[order])
    return LossInput(_single(features), _single(logits[:5]), _single(logits[5:]), pids[order], modality[order])


def _single(arrays: list[Array]) -> list[Array]:
    return [np.ascontiguousarray(array).astype(np.float32) for array in arrays]


# --- sampler --------------------------------------------------------------------------------------------------------------
class SamplerCase(NamedTuple):
    """`images` of each identity in a batch of `batch_size`; RegDB lists are lengthened first."""

    labels: str
    regdb: bool
    batch_size: int
    images: int
    seed: int


SAMPLER_CASES = {
    "sysu_small": SamplerCase("sysu_small", False, 64, 8, 1234),
    "sysu_small_b16k4": SamplerCase("sysu_small", False, 16, 4, 7),
    "sysu_more_ir": SamplerCase("sysu_more_ir", False, 32, 8, 5),
    "regdb_small": SamplerCase("regdb_small", True, 64, 8, 1234),
    "regdb": SamplerCase("regdb", True, 64, 8, 1234),
    "regdb_seed1": SamplerCase("regdb", True, 64, 8, 1),
    "sysu_few": SamplerCase("sysu_few", False, 64, 8, 1234),
}


def sampler_labels(name: str) -> tuple[list[int], list[bool]]:
    """Identity of each image, and whether it is visible."""
    rows: list[tuple[int, bool]] = []
    if name in ("regdb", "regdb_small"):
        ids = 206 if name == "regdb" else 12
        rows = [(pid, visible) for visible in (False, True) for pid in range(ids) for _ in range(10)]
    elif name == "sysu_small":
        rs = RandomState(931)
        for pid in range(14):
            visible, infrared = rs.randint(5, 25), rs.randint(4, 13)
            rows += [(pid, True)] * visible + [(pid, False)] * infrared
    elif name == "sysu_more_ir":
        rs = RandomState(932)
        for pid in range(10):
            visible, infrared = rs.randint(4, 12), rs.randint(4, 20)
            rows += [(pid, True)] * visible + [(pid, False)] * infrared
        rows = [rows[n] for n in rs.permutation(len(rows))]
    elif name == "sysu_few":
        rows = [(pid, True) for pid in range(9) for _ in range(8)]
        rows += [(pid, False) for pid in range(9) for _ in range(2 if pid == 3 else 6)]
    else:
        raise KeyError(name)
    return [pid for pid, _ in rows], [visible for _, visible in rows]


# --- position table -------------------------------------------------------------------------------------------------------
POSITION_GRIDS = {"256x128_s12": (21, 10), "256x128_s16": (16, 8), "384x144_s12": (31, 11)}


def position_table() -> Array:
    """(1, 197, 32) float32: a class row and a 14 x 14 grid."""
    return RandomState(941).standard_normal((1, 197, 32)).astype(np.float32)


def golden(name: str) -> Any:
    """A reference file, by its name."""
    path = GOLDENS / name
    return json.loads(path.read_text()) if path.suffix == ".json" else np.load(path)
