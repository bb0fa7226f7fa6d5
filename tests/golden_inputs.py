"""Seeded inputs behind tests/goldens: the same arrays that the reference numbers were computed from.

Everything comes from numpy's legacy generator (`RandomState`), whose streams never change, so a reference file only
needs to hold outputs. The order of the draws is part of the definition: do not reorder lines that touch a generator.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState

Array = np.ndarray


# --- ranking ----------------------------------------------------------------------------------------------------------
class EvalCase(NamedTuple):
    """One ranking problem. `gallery` None: one image per (identity, camera) cell; `query_ids` is a half-open range."""

    seed: int
    queries: int
    gallery: int | None
    gallery_ids: int
    query_ids: tuple[int, int]
    query_cams: Sequence[int]
    gallery_cams: Sequence[int]
    ties: int | str | None = None  # decimals that scores are rounded to, or "same_id"


EVAL_CASES: dict[str, EvalCase] = {
    "a_rand_40x200": EvalCase(101, 40, 200, 30, (0, 30), (3, 6), (1, 2, 4, 5)),
    "b_unmatched_50x150": EvalCase(102, 50, 150, 25, (0, 40), (3, 6), (1, 2, 4, 5)),
    "c_ties_30x120": EvalCase(103, 30, 120, 22, (0, 22), (3, 6), (1, 2, 4, 5), 1),
    "d_ties_hard_20x90": EvalCase(104, 20, 90, 21, (0, 24), (3, 6), (1, 2, 4, 5), 0),
    "e_cells_60x96": EvalCase(105, 60, None, 24, (0, 24), (3, 6), (1, 2, 4, 5)),
    "f_cells_indoor": EvalCase(106, 60, None, 24, (0, 24), (3, 6), (1, 2)),
    "g_small_q3": EvalCase(107, 12, None, 6, (0, 6), (3,), (1, 2, 4)),
    "h_small_q6": EvalCase(108, 12, None, 5, (0, 7), (6,), (1, 2, 4)),
    "i_small_mixed": EvalCase(109, 12, None, 6, (0, 6), (3, 6), (1, 2, 4)),
    "j_llcm_80x160": EvalCase(110, 80, 160, 40, (0, 40), (1, 2, 4, 5, 6, 7, 8, 9), tuple(range(1, 10))),
    "k_llcm_ties": EvalCase(111, 40, 130, 30, (0, 36), (1, 2, 4, 5), (1, 2, 3, 4, 5), 1),
    "l_few_ids_30x60": EvalCase(112, 30, 60, 8, (0, 8), (6,), (1, 4)),
    "m_single_query": EvalCase(113, 1, 50, 25, (0, 1), (3,), (1, 2, 4, 5)),
    "n_dup_rows_ties": EvalCase(114, 25, 100, 25, (0, 25), (3, 6), (1, 2, 4, 5), "same_id"),
    "o_none_matched": EvalCase(115, 5, 40, 20, (20, 30), (6,), (1, 4)),
    "p_sysu_size": EvalCase(116, 400, None, 96, (0, 96), (3, 6), (1, 2, 4, 5)),
}


def eval_case(name: str) -> tuple[Array, Array, Array, Array, Array]:
    """Similarities (Q, G) float64 and int64 labels: q_pids, g_pids, q_cams, g_cams. Distance is minus similarity."""
    case = EVAL_CASES[name]
    rng = RandomState(case.seed)
    g_cam_list, q_cam_list = np.array(case.gallery_cams), np.array(case.query_cams)
    if case.gallery is None:
        g_pids = np.arange(case.gallery_ids).repeat(len(g_cam_list))
        g_cams = np.tile(g_cam_list, case.gallery_ids)
    else:
        g_pids = rng.randint(0, case.gallery_ids, case.gallery)
        g_cams = g_cam_list[rng.randint(0, len(g_cam_list), case.gallery)]
    q_pids = rng.randint(*case.query_ids, case.queries)
    q_cams = q_cam_list[rng.randint(0, len(q_cam_list), case.queries)]
    sim = rng.standard_normal((case.queries, len(g_pids))) + 1.0 * (q_pids[:, None] == g_pids)
    if case.ties == "same_id":  # every image of an identity scores like that identity's first one
        _, first, inverse = np.unique(g_pids, return_index=True, return_inverse=True)
        sim = sim[:, first[inverse]]
    elif case.ties is not None:
        sim = np.round(sim, case.ties)
    q_pids, g_pids, q_cams, g_cams = (labels.astype(np.int64) for labels in (q_pids, g_pids, q_cams, g_cams))
    return sim, q_pids, g_pids, q_cams, g_cams


# --- losses, pooling, fusion, ensemble --------------------------------------------------------------------------------
class WrtCase(NamedTuple):
    """One batch for the weighted regularised triplet loss."""

    seed: int
    ids: int
    per_id: int
    dim: int
    scale: float
    shuffle: bool = False


WRT_CASES: dict[str, WrtCase] = {
    "a_8x12_d16": WrtCase(201, 8, 12, 16, 1.0),
    "b_4x3_d32": WrtCase(202, 4, 3, 32, 0.3, True),
    "c_8x20_d64": WrtCase(203, 8, 20, 64, 0.1, True),
    "d_big_scale": WrtCase(204, 6, 4, 24, 20.0),
    "e_singletons": WrtCase(205, 10, 1, 16, 1.0),  # every row has only itself as a positive
    "f_one_id": WrtCase(206, 1, 6, 16, 1.0),  # nobody has a negative
    "g_duplicates": WrtCase(207, 4, 4, 16, 1.0),  # rows 0, 1 and 5 coincide
    "h_d2048": WrtCase(208, 4, 5, 2048, 0.05),
}


def wrt_case(name: str) -> tuple[Array, Array]:
    """Features (N, D) float32 and identities (N,) int64, spaced like data-set numbers (3, 10, 17, ...)."""
    case = WRT_CASES[name]
    rng = RandomState(case.seed)
    pids = (3 + 7 * np.arange(case.ids)).repeat(case.per_id)
    centres = rng.standard_normal((case.ids, case.dim)).repeat(case.per_id, axis=0)
    feats = (centres * 0.5 + rng.standard_normal(centres.shape)) * case.scale
    if name == "g_duplicates":
        feats[[1, 5]] = feats[0]
    if case.shuffle:
        order = rng.permutation(len(pids))
        feats, pids = feats[order], pids[order]
    return feats.astype(np.float32), pids.astype(np.int64)


def gem_input(case: str) -> Array:
    """Feature maps (N, C, h, w) float32: "normal" has both signs, "relu" none below 0, "all_neg" none above."""
    if case == "normal":
        maps = RandomState(301).standard_normal((3, 16, 18, 9))
    elif case == "relu":
        maps = RandomState(302).standard_normal((2, 32, 18, 9)).clip(min=0)
    elif case == "all_neg":
        maps = -np.abs(RandomState(303).standard_normal((2, 4, 6, 3)))
    else:
        raise KeyError(f"No GeM input {case!r}; choose normal, relu or all_neg")
    return maps.astype(np.float32)


def gem_output_weights(shape: tuple[int, ...]) -> Array:
    """Weights w of the scalar sum(out * w) whose gradients the GeM reference holds (float64)."""
    return RandomState(399).standard_normal(shape)


def sff_input() -> tuple[Array, Array, Array]:
    """f_ir, f_T(T_rgb), f_T(T_ir), each (7, 2048) float32."""
    rng = RandomState(311)
    f_ir, t_rgb, t_ir = (rng.standard_normal((7, 2048)).astype(np.float32) for _ in range(3))
    return f_ir, t_rgb, t_ir


def ensemble_input() -> list[Array]:
    """Raw features: infrared, text, fusion (9, 64) and gallery (14, 64); then BN gain, bias, mean, variance (64,)."""
    rng = RandomState(321)
    feats = [rng.standard_normal((rows, 64)) for rows in (9, 9, 9, 14)]
    gain = 1 + 0.1 * rng.standard_normal(64)
    bias = 0.1 * rng.standard_normal(64)
    mean = 0.1 * rng.standard_normal(64)
    var = 0.5 + np.abs(rng.standard_normal(64))
    return [array.astype(np.float32) for array in (*feats, gain, bias, mean, var)]


def prj_input() -> tuple[Array, Array]:
    """Two small text projections, (6, 16) to be stretched to 32 columns and (4, 10) to 16."""
    rng = RandomState(331)
    first = rng.standard_normal((6, 16)).astype(np.float32)
    return first, rng.standard_normal((4, 10)).astype(np.float32)


# --- model ------------------------------------------------------------------------------------------------------------
W_SEED = 1000
LAST_STAGE = "shared_model.resnet_conv.3."


def weight(i: int, key: str, shape: Sequence[int], variant: str = "eval") -> Array:
    """Weight of the authors' i-th state-dict key (in sorted order), float32; counters are int64 zeros.

    Args:
        i: index of the key, which is also its seed.
        key: the authors' key; its ending picks the scale.
        shape: shape of the weight.
        variant: "eval" for model_forward, "train" for train_step, whose last stage and text projection are ten times
            smaller, so that the authors' form of the triplet loss stays finite.
    """
    shape = tuple(shape)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = RandomState(W_SEED + i).standard_normal(shape)
    if key == "logit_scale":
        value = 2.6592600 + 0.0 * noise
    elif key.endswith("GEM.p"):
        value = 3.0 + 0.2 * noise
    elif key.endswith("running_mean"):
        value = 0.1 * noise
    elif key.endswith("running_var"):
        value = 0.75 + 0.5 * np.abs(noise)
    elif len(shape) == 4:
        value = noise * np.sqrt(2.0 / np.prod(shape[1:]))
    elif key.endswith("token_embedding.weight") or key.endswith("classifier.classifier.weight"):
        value = 0.02 * noise
    elif key.endswith("positional_embedding"):
        value = 0.01 * noise
    elif key.endswith("text_projection"):
        value = noise * 512**-0.5
    elif len(shape) == 2:
        value = noise * (0.7 / np.sqrt(shape[1]))
    elif key.endswith("weight"):
        value = 1.0 + 0.1 * noise
    elif key.endswith("bias"):
        value = 0.05 * noise
    else:
        raise KeyError(f"No rule for the weight {key!r} of shape {shape}")
    if len(shape) == 1 and key.endswith(".bn3.weight"):
        value = 0.4 * value
    if variant == "train":
        affine = key.endswith((".weight", ".bias")) and (".bn3." in key or ".downsample.1." in key)
        if key.endswith("text_projection") or (LAST_STAGE in key and affine):
            value = 0.1 * value
    return value.astype(np.float32)


def images(seed: int, b: int, h: int = 288, w: int = 144) -> tuple[Array, Array]:
    """Blocky images (b, h, w, 3) uint8, and the same normalised with ImageNet's statistics (b, 3, h, w) float32."""
    rng = RandomState(seed)
    blocks = rng.uniform(0, 255, (b, h // 16, w // 16, 3))
    pixels = np.kron(blocks, np.ones((1, 16, 16, 1))) + rng.uniform(-20, 20, (b, h, w, 3))
    pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    normal = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return pixels, np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def tokens(seed: int, b: int, length: int = 77) -> Array:
    """Rows (b, length) int64 of start, 5 to 59 random ids, end, zeros."""
    rng = RandomState(seed)
    rows = np.zeros((b, length), np.int64)
    for row in rows:
        words = rng.randint(5, 60)
        row[: words + 2] = [49406, *rng.randint(300, 49000, words), 49407]
    return rows


def train_batch(stage: int) -> dict[str, Array]:
    """Four samples of identities 5, 5, 17, 17: normalised images (4, 3, 96, 48) and, in stage 2, tokens (4, 77)."""
    pids = np.array([5, 5, 17, 17])
    views = {"img_rgb_ori": 711, "img_rgb_aug": 712, "img_ir": 713}
    batch = {name: images(seed, 4, 96, 48)[1] for name, seed in views.items()}
    batch.update(target_rgb=pids, target_ir=pids.copy())
    if stage == 2:
        batch.update(text_rgb=tokens(714, 4), text_ir=tokens(715, 4))
    return batch


# --- folder trees, sampler labels, augmentation -----------------------------------------------------------------------
SYSU_IDS = [333, 6, 12, 101, 25, 40, 77, 9, 50, 284]  # the unsorted order of exp/test_id.txt
LLCM_IDS = [703, 21, 5, 310, 44, 88, 150, 9]


def sysu_tree() -> list[str]:
    """Relative paths of a SYSU-MM01 test tree, cam1..cam6; every fifth (identity, camera) cell is missing."""
    return [
        f"cam{cam}/{pid:04d}/{number:04d}.jpg"
        for pid in SYSU_IDS
        for cam in range(1, 7)
        if (7 * pid + 3 * cam) % 5
        for number in range(1, 11 + (13 * pid + 29 * cam) % 16)
    ]


def llcm_tree() -> list[str]:
    """Relative paths of an LLCM test tree: test_vis/cam1..9 and test_nir without cam3; some cells are missing."""
    paths = []
    for kind in ("vis", "nir"):
        for pid in LLCM_IDS:
            for cam in range(1, 10):
                nir_present = cam != 3 and (pid + cam) % 3 != 0
                present = (5 * pid + 3 * cam) % 4 != 0 if kind == "vis" else nir_present
                count = 1 + (11 * pid + 17 * cam) % 9 if present else 0
                for k in range(1, count + 1):
                    name = f"{pid:04d}_c{cam:02d}_s{k * 7 % 5:03d}_f{100 * k}_{kind}.jpg"
                    paths.append(f"test_{kind}/cam{cam}/{pid:04d}/{name}")
    return paths


def sampler_labels() -> tuple[Array, Array]:
    """Sorted labels of 97 visible and 61 infrared images of identities 0..11, each identity present in both."""
    rng = RandomState(401)
    rgb, ir = (np.concatenate([np.arange(12), rng.randint(0, 12, extra)]) for extra in (85, 49))
    return np.sort(rgb), np.sort(ir)


def aug_tensor(k: int) -> Array:
    """The normalised image (3, 32, 16) float32 that the k-th augmentation call receives."""
    return RandomState(500 + k).standard_normal((3, 32, 16)).astype(np.float32)
