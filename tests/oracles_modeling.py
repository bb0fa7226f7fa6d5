"""Small models for the tests of `modeling`, and slow literal twins of what it computes."""

import tvilfm_plugin

# isort: split

import json
import math
from pathlib import Path

import numpy as np
import torch
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model
from golden_inputs import tokens, weight
from torch import Tensor, nn
from yacs.config import CfgNode

import tvilfm_plugin.modeling.registration  # noqa: F401  (fills fast-reid's registries)
from tvilfm_plugin.checkpoints.released_keys import released_key
from tvilfm_plugin.config import add_tvilfm_config
from tvilfm_plugin.modeling.text_encoder import TextEncoder, build_text_encoder

GOLDENS = Path(__file__).parent / "goldens"
TINY_TOWER = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


def golden(name: str) -> np.lib.npyio.NpzFile:
    """Arrays of tests/goldens/<name>.npz."""
    return np.load(GOLDENS / f"{name}.npz")


def golden_json(name: str) -> dict:
    """Content of tests/goldens/<name>.json."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def write_tower(folder: Path) -> str:
    """A tiny text architecture as a JSON file; returns its path."""
    path = folder / "tower.json"
    path.write_text(json.dumps(TINY_TOWER))
    return str(path)


def random_encoder(tower: str, dim: int = 24) -> TextEncoder:
    """A text encoder of random weights, biases and gains too."""
    torch.manual_seed(0)
    encoder = build_text_encoder(tower, "", dim).eval()
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.2, 1.0)
    return encoder


def small_config(architecture: str = "VIBaseline", tower: str = "", *overrides: object) -> CfgNode:
    """A model of 32 features, ten identities and images of 32 x 16; a TVILFM needs a `tower` file."""
    cfg = get_cfg()
    add_tvilfm_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.BACKBONE.NAME = "build_dual_stream_backbone"
    cfg.MODEL.DUAL_STREAM.BASE = "build_small_resnet_backbone"
    cfg.MODEL.BACKBONE.SMALL_WIDTH = 4
    cfg.MODEL.BACKBONE.SMALL_BLOCKS = (1, 1, 1, 1)
    cfg.MODEL.BACKBONE.FEAT_DIM = 32
    cfg.MODEL.HEADS.NAME = "IdentityHead"
    cfg.MODEL.HEADS.NUM_CLASSES = 10
    cfg.MODEL.HEADS.POOL_LAYER = "GeneralizedMeanPoolingP"
    cfg.MODEL.LOSSES.NAME = ("identity", "weighted_triplet")
    cfg.MODEL.TEXT.ARCH = tower
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [32, 16]
    cfg.merge_from_list(list(overrides))
    return cfg


def small_model(architecture: str = "VIBaseline", tower: str = "", *overrides: object, seed: int = 0) -> nn.Module:
    """The model of `small_config`, with affine BN parameters and buffers that are not 0 and 1."""
    torch.manual_seed(seed)
    model = build_model(small_config(architecture, tower, *overrides))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def small_batch(pids: tuple[int, ...] = (1, 1, 4, 4), seed: int = 0) -> dict[str, Tensor]:
    """A training batch as `PairedDataset` makes it."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(pids), 3, 32, 16)
    batch = {n: torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for n in ("rgb", "rgb_aug", "ir")}
    for view, op in (("rgb", 0), ("rgb_aug", 2), ("ir", 4)):
        batch[f"{view}_ops"] = torch.tensor([[3, 2, 8, 5, op], [0, 0, 0, 0, op]]).repeat(len(pids), 1)[: len(pids)]
    batch["rgb_tokens"] = torch.from_numpy(tokens(50 + seed, len(pids)))
    batch["ir_tokens"] = torch.from_numpy(tokens(60 + seed, len(pids)))
    batch["targets"] = torch.tensor(pids)
    return batch


def load_golden_weights(model: nn.Module, variant: str) -> None:
    """Give every tensor the seeded value of the authors' key of the same role."""
    index = {entry["key"]: entry["i"] for entry in golden_json("state_dict_keys")["keys"]}
    for name, value in model.state_dict().items():
        if name.startswith("stage1."):
            continue  # the goldens were made before stage 1's parts are copied
        key = released_key(name)
        value.copy_(torch.from_numpy(weight(index[key], key, tuple(value.shape), variant)))


# --- literal twins ----------------------------------------------------------------------------------------------------


def wrt_by_loops(feats: Tensor, pids: Tensor) -> Tensor:
    """Weighted regularised triplet loss, row by row and pair by pair (differentiable)."""
    total = feats.new_zeros(())
    for i in range(len(feats)):
        dist = [((feats[i] - feats[j]).square().sum()).clamp(min=1e-12).sqrt() for j in range(len(feats))]
        positives = [d for d, pid in zip(dist, pids, strict=True) if pid == pids[i]]
        negatives = [d for d, pid in zip(dist, pids, strict=True) if pid != pids[i]]
        top = max(positives, key=lambda d: d.item())
        up = [torch.exp(d - top) for d in positives]
        down = [torch.exp(-d) for d in negatives]
        furthest = sum(w * d for w, d in zip(up, positives, strict=True)) / (sum(up) + 1e-6)
        nearest = sum(w * d for w, d in zip(down, negatives, strict=True)) / (sum(down) + 1e-6) if down else 0.0
        gap = furthest - nearest
        total = total + torch.log1p(torch.exp(-gap.abs())) + gap.clamp(min=0)
    return total / len(feats)


def identity_by_loops(logits: Tensor, pids: Tensor) -> Tensor:
    """Cross entropy, row by row."""
    return -sum(torch.log(row.exp() / row.exp().sum())[pid] for row, pid in zip(logits, pids, strict=True)) / len(pids)


def erase_and_mix(image: Tensor, ops: Tensor) -> Tensor:
    """One normalised image (3, H, W) after erasing and its channel operation."""
    image = image.clone()
    top, left, height, width, op = ops.tolist()[:5]
    for c, fill in enumerate((0.4914, 0.4822, 0.4465)):
        image[c, top : top + height, left : left + width] = fill
    if 1 <= op <= 3:
        return torch.stack([image[op - 1]] * 3)
    if op == 4:
        return torch.stack([0.2989 * image[0] + 0.5870 * image[1] + 0.1140 * image[2]] * 3)
    return image


def small_resnet_by_hand(state: dict[str, Tensor], image: Tensor, modality: str) -> Tensor:
    """One normalised image (3, H, W) through the small dual-stream ResNet with running statistics -> (D,) after GeM."""
    conv = torch.nn.functional.conv2d

    def bn(x: Tensor, name: str) -> Tensor:
        mean, var, gain, bias = (
            state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    base = "visual.backbone.base."
    x = conv(image[None], state[f"{base}conv1.{modality}.weight"], stride=2, padding=3)
    x = bn(x, f"{base}bn1.{modality}")
    x = torch.nn.functional.max_pool2d(x, 3, 2, padding=1)
    for stage in range(1, 5):
        stride = 2 if stage in (2, 3) else 1
        name = f"{base}layer{stage}.0"
        y = bn(conv(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1").clamp(min=0)
        y = bn(conv(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        if stage > 1:
            x = bn(conv(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        x = (x + y).clamp(min=0)
    p = state["visual.pool.p"]
    return (x.clamp(min=1e-6) ** p).mean(dim=(2, 3))[0] ** (1 / p)


def clip_text_by_hand(state: dict[str, Tensor], ids: Tensor, heads: int) -> Tensor:
    """One caption (77,) through a CLIP text tower, at full length with explicit attention -> (D,)."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = torch.stack([state["text.token_embedding.weight"][i] for i in ids.tolist()])
    x = x + state["text.positional_embedding"]
    width = x.shape[1]
    size = width // heads
    layers = sum(name.endswith("ln_1.weight") for name in state)
    for layer in range(layers):
        block = f"text.transformer.resblocks.{layer}."
        qkv = norm(x, block + "ln_1") @ state[block + "attn.in_proj_weight"].T + state[block + "attn.in_proj_bias"]
        queries, keys, values = qkv.split(width, dim=1)
        mixed = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            rows = []
            for n in range(len(x)):
                scores = (keys[: n + 1, part] @ queries[n, part]) / math.sqrt(size)
                share = (scores - scores.max()).exp()
                rows.append((share / share.sum()) @ values[: n + 1, part])
            mixed.append(torch.stack(rows))
        x = x + torch.cat(mixed, dim=1) @ state[block + "attn.out_proj.weight"].T + state[block + "attn.out_proj.bias"]
        hidden = norm(x, block + "ln_2") @ state[block + "mlp.c_fc.weight"].T + state[block + "mlp.c_fc.bias"]
        hidden = hidden / (1 + torch.exp(-1.702 * hidden))
        x = x + hidden @ state[block + "mlp.c_proj.weight"].T + state[block + "mlp.c_proj.bias"]
    end = ids.tolist().index(49407)
    return norm(x[end], "text.ln_final") @ state["text.text_projection"]


def stage2_losses_by_hand(
    state: dict[str, Tensor], batch: dict[str, Tensor], heads: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A stage-2 step with frozen BN: one image and one caption at a time.

    Returns:
        The two losses, and the neck's running statistics after the step.
    """
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def images(view: str, modality: str) -> list[Tensor]:
        feats = []
        for pixels, ops in zip(batch[view], batch[f"{view}_ops"], strict=True):
            normal = erase_and_mix((pixels / 255.0 - mean) / std, ops).to(state["visual.pool.p"].dtype)
            feats.append(small_resnet_by_hand(state, normal, modality).detach())
        return feats

    first, second, infrared = images("rgb", "rgb"), images("rgb_aug", "rgb"), images("ir", "ir")
    texts = [clip_text_by_hand(state, ids, heads) for ids in batch["rgb_tokens"]]
    filters = [clip_text_by_hand(state, ids, heads) for ids in batch["ir_tokens"]]
    fused = [ir + t - f for ir, t, f in zip(infrared, texts, filters, strict=True)]
    rows = torch.stack(first + second + infrared + fused + texts)
    pids = torch.cat([batch["targets"]] * 5)

    centre = rows.mean(dim=0)
    spread = (rows - centre).square().mean(dim=0)
    after = (rows - centre) / (spread + 1e-5).sqrt() * state["heads.neck.weight"] + state["heads.neck.bias"]
    logits = after @ state["heads.classifier.weight"].T
    losses = {"loss_identity": identity_by_loops(logits, pids), "loss_weighted_triplet": wrt_by_loops(rows, pids)}
    unbiased = spread * len(rows) / (len(rows) - 1)
    buffers = {
        "heads.neck.running_mean": 0.9 * state["heads.neck.running_mean"] + 0.1 * centre.detach(),
        "heads.neck.running_var": 0.9 * state["heads.neck.running_var"] + 0.1 * unbiased.detach(),
    }
    return losses, buffers


def adam_first_step(value: Tensor, grad: Tensor, lr: float, decay: float) -> Tensor:
    """The first step of Adam with coupled L2: both moments start at zero, so only sign and size of the gradient remain."""
    grad = grad + decay * value
    return value - lr * grad / (grad.abs() + 1e-8)
