"""The same work in the order in which the authors' released code does it, in our own words; preset `paper`.

77 positions for every text, image and text encoded as often as there, galleries embedded anew for every draw, one
query after the other in the ranking, images through the image library, one optimiser group per tensor, BN as layers.
"""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

FILL = (0.4914, 0.4822, 0.4465)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# --- images ----------------------------------------------------------------------------------------------------------


def training_views(visible: np.ndarray, infrared: np.ndarray, rng: random.Random) -> list[Tensor]:
    """Two visible views and an infrared one, (3, H, W) normalised and augmented image by image."""
    return [
        _view(visible, rng, gray=0.1, erase=0.6, channels="keep"),
        _view(visible, rng, gray=0.0, erase=0.6, channels="exchange"),
        _view(infrared, rng, gray=0.0, erase=0.5, channels="adaptive"),
    ]


def _view(pixels: np.ndarray, rng: random.Random, gray: float, erase: float, channels: str) -> Tensor:
    height, width = pixels.shape[:2]
    down, right = rng.randint(-10, 10), rng.randint(-10, 10)
    flip, to_gray = rng.random() < 0.5, rng.random() < gray
    picture = ImageOps.expand(Image.fromarray(pixels), border=10, fill=0)
    picture = picture.crop((10 - right, 10 - down, 10 - right + width, 10 - down + height))
    if flip:
        picture = ImageOps.mirror(picture)
    if to_gray:
        picture = picture.convert("L").convert("RGB")
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
    image = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    _erase(image, rng, erase)
    return _mix(image, rng, channels)


def _erase(image: Tensor, rng: random.Random, prob: float) -> None:
    if rng.uniform(0, 1) > prob:
        return
    height, width = image.shape[1:]
    for _ in range(100):
        area = rng.uniform(0.02, 0.4) * (height * width)
        aspect = rng.uniform(0.3, 1 / 0.3)
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = rng.randint(0, height - h), rng.randint(0, width - w)
            for channel, value in enumerate(FILL):
                image[channel, top : top + h, left : left + w] = value
            return


def _mix(image: Tensor, rng: random.Random, channels: str) -> Tensor:
    if channels == "exchange" and rng.uniform(0, 1) <= 0.5:
        return image[rng.randint(0, 2)].expand(3, -1, -1).clone()
    if channels == "adaptive":
        choice = rng.randint(0, 3)
        if choice < 3:
            return image[choice].expand(3, -1, -1).clone()
        if rng.uniform(0, 1) <= 0.6:
            return (0.2989 * image[0] + 0.5870 * image[1] + 0.1140 * image[2]).expand(3, -1, -1).clone()
    return image


# --- networks --------------------------------------------------------------------------------------------------------


def visual(model: Any, visible: Tensor | None, infrared: Tensor | None) -> Tensor:
    """Normalised images -> raw features: own stem each, one trunk, GeM. Visible rows come first."""
    base = model.visual.backbone.base
    stems = []
    for name, rows in (("rgb", visible), ("ir", infrared)):
        if rows is not None:
            stems.append(base.maxpool(base.bn1[name](base.conv1[name](rows))))
    maps = torch.cat(stems)
    for stage in (base.layer1, base.layer2, base.layer3, base.layer4):
        maps = stage(maps)
    return model.visual.pool(maps).flatten(1)


def text(model: Any, tokens: Tensor) -> Tensor:
    """All positions through the transformer and the last norm, then one per caption through the projection."""
    encoder = model.text
    hidden = encoder.token_embedding(tokens) + encoder.positional_embedding
    hidden = encoder.ln_final(encoder.transformer(hidden, attn_mask=encoder.attn_mask))
    return hidden[torch.arange(len(tokens)), tokens.argmax(dim=1)] @ encoder.text_projection


def losses(model: Any, features: Tensor, targets: Tensor) -> Tensor:
    """Identity loss behind the neck plus WRT before it."""
    logits = model.heads.classifier(model.heads.neck(features))
    return F.cross_entropy(logits, targets) + _weighted_triplet(features, targets)


def _weighted_triplet(features: Tensor, targets: Tensor) -> Tensor:
    count = len(features)
    squares = features.pow(2).sum(1, keepdim=True).expand(count, count)
    distance = (squares + squares.t()).addmm(features, features.t(), beta=1, alpha=-2).clamp(min=1e-12).sqrt()
    same = targets.expand(count, count).eq(targets.expand(count, count).t()).float()
    other = 1 - same
    weights = []
    for scores, mask in ((distance * same, same), (-distance * other, other)):
        shifted = torch.exp(scores - scores.max(dim=1, keepdim=True)[0]) * mask
        weights.append(shifted / (shifted.sum(dim=1, keepdim=True) + 1e-6))
    gap = (distance * weights[1]).sum(1) - (distance * weights[0]).sum(1)
    # Written out, as there, it overflows for gaps beyond 88, which random features have.
    return F.softplus(-gap).mean()


def stage1_loss(model: Any, visible: Tensor, infrared: Tensor, targets: Tensor) -> Tensor:
    return losses(model, visual(model, visible, infrared), targets.repeat(3))


def stage2_loss(model: Any, visible: Tensor, infrared: Tensor, rgb: Tensor, ir: Tensor, targets: Tensor) -> Tensor:
    features = visual(model, visible, infrared)
    words, filters = text(model, rgb), text(model, ir)
    fused = features[len(visible) :] + words - filters
    return losses(model, torch.cat([features, fused, words]), targets.repeat(5))


def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam with a group for every tensor."""
    return torch.optim.Adam([{"params": [p], "lr": lr} for p in model.parameters() if p.requires_grad], weight_decay=5e-4)


# --- evaluation ------------------------------------------------------------------------------------------------------


def query_features(model: Any, images: Tensor, rgb: Tensor, ir: Tensor) -> list[Tensor]:
    """Unit infrared, text and fusion embeddings of a batch of queries: image and visible text are encoded twice."""
    infrared = visual(model, None, images)
    words = text(model, rgb)
    fused = visual(model, None, images) + text(model, rgb) - text(model, ir)
    return [F.normalize(model.heads.neck(rows), dim=1) for rows in (infrared, words, fused)]


def gallery_features(model: Any, images: Tensor) -> Tensor:
    return F.normalize(model.heads.neck(visual(model, images, None)), dim=1)


def rank(
    dist: np.ndarray, pids: np.ndarray, camids: np.ndarray, gallery_pids: np.ndarray, gallery_camids: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """SYSU-MM01's rules, one query after the other: identity CMC (20 ranks), mAP, mINP."""
    order = np.argsort(dist, axis=1, kind="stable")
    ranked = gallery_pids[order]
    hits = (ranked == pids[:, None]).astype(np.int32)
    curves, precisions, penalties = [], [], []
    for query in range(len(dist)):
        kept = ~((camids[query] == 3) & (gallery_camids[order[query]] == 2))
        found = hits[query][kept]
        if not found.any():
            continue
        identities = ranked[query][kept]
        first = np.sort(np.unique(identities, return_index=True)[1])
        curve = (identities[first] == pids[query]).astype(np.int32).cumsum()
        curves.append(np.pad(curve, (0, max(0, 20 - len(curve))), mode="edge")[:20])
        total = found.cumsum()
        last = np.max(np.where(found == 1))
        penalties.append(total[last] / (last + 1.0))
        precisions.append((np.asarray([x / (i + 1.0) for i, x in enumerate(total)]) * found).sum() / found.sum())
    return np.mean(curves, axis=0), float(np.mean(precisions)), float(np.mean(penalties))


def mean_over_draws(results: Sequence[tuple[np.ndarray, float, float]]) -> tuple[np.ndarray, float, float]:
    curves, precisions, penalties = zip(*results, strict=True)
    return np.mean(curves, axis=0), float(np.mean(precisions)), float(np.mean(penalties))
