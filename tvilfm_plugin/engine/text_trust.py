"""What agreement of words and infrared picture is worth for a trained model, learned on its training people."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.utils import comm
from torch import Tensor
from yacs.config import CfgNode

from tvilfm_plugin.data.items import group_by_person
from tvilfm_plugin.data.loaders import build_dataset
from tvilfm_plugin.data.resize import picture_pixels
from tvilfm_plugin.evaluation.features import encode_texts
from tvilfm_plugin.evaluation.fingerprint import weights_sha256
from tvilfm_plugin.evaluation.flips import encode_rows, encoding
from tvilfm_plugin.evaluation.text_trust import FILE, SINGLE, TextTrust, calibrate
from tvilfm_plugin.files.pictures import Window
from tvilfm_plugin.modality import Modality

logger = logging.getLogger("fastreid." + __name__)

PICTURES = 2000
"""Infrared training pictures that it is learned on, at most."""


def calibration(cfg: CfgNode, model: Any) -> TextTrust:
    """The calibration of the run's folder, learned and written there where there is none for these weights.

    Args:
        model: not wrapped.
    """
    file, weights = Path(cfg.OUTPUT_DIR) / FILE, weights_sha256(model)
    found = TextTrust.load(file, weights)
    if found is None:
        found = _learn(cfg, model, file, weights)
    return replace(found, how=cfg.TEST.TEXT_TRUST or SINGLE)


def _learn(cfg: CfgNode, model: Any, file: Path, weights: str) -> TextTrust:
    data = build_dataset(cfg, cfg.DATASETS.NAMES[0], text=True, verbose=False)
    random = np.random.RandomState(0)
    rows = np.sort(random.permutation(len(data.train_ir))[:PICTURES])
    chosen, visible = [data.train_ir[row] for row in rows], group_by_person(data.train_rgb)
    witnesses = [data.train_rgb[random.choice(visible[item.pid])] for item in chosen]
    said = [data.captions[Modality.RGB][data.relative(item.path)].text for item in witnesses]
    seen = [data.captions[Modality.IR][data.relative(item.path)].text for item in chosen]
    pictures = encode_pictures(cfg, model, [item.path for item in chosen], [item.camid for item in chosen])
    with evaluating(model):
        raw = (pictures, *(encode_texts(model, texts) for texts in (said, seen)))
        infrared, words, captions = (model.embed(one.to(model.device)).float().cpu().numpy() for one in raw)
    pids = np.array([item.pid for item in chosen])
    found = calibrate(infrared, words, captions, said, seen, pids, weights=weights)
    if comm.is_main_process():
        found.save(file)
    logger.info(f"Trust in words is learned on {len(chosen)} pictures of {found.people} training people: {file}")
    return found


def encode_pictures(
    cfg: CfgNode,
    model: Any,
    paths: Sequence[str],
    camids: Sequence[int],
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Tensor:
    """Raw (N, D) features, on the CPU, of infrared pictures as an evaluation prepares them.

    Args:
        change: (H, W, 3) uint8 -> the same, of every picture at the model's size.
    """
    encode, flip = encoding(model, cfg.TEST)
    size, window = tuple(cfg.INPUT.SIZE_TEST), Window.of(cfg.INPUT.IR_SCALING)
    parts = []
    with evaluating(model):
        for start in range(0, len(paths), cfg.TEST.IMS_PER_BATCH):
            rows = slice(start, start + cfg.TEST.IMS_PER_BATCH)
            pixels = [picture_pixels(path, size, cfg.INPUT.RESAMPLE_TEST, window) for path in paths[rows]]
            images = np.stack([one if change is None else change(one) for one in pixels]).transpose(0, 3, 1, 2)
            cameras = torch.tensor(np.asarray(camids[rows]), device=model.device)
            batch = torch.from_numpy(images.copy()).to(model.device)
            parts.append(encode_rows(encode, batch, Modality.IR, cameras, flip).float().cpu())
    return torch.cat(parts)


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model in eval mode and without gradients, for a while."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        model.train(training)
