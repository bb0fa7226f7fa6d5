"""Full-size parts of the methods with seeded weights by the authors' keys, and comparisons with their numbers."""

import re

import golden_inputs_baselines as inputs
import numpy as np
import torch
from fastreid.config import get_cfg
from fastreid.modeling.backbones.resnet import build_resnet_backbone
from torch import nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.dual_stream import DualStream

STEM = ("conv1", "bn1", "relu", "maxpool")
STEMS = {"rgb": "visible_module.visible.", "ir": "thermal_module.thermal."}


def resnet50(non_local=False):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.LAST_STRIDE = "50x", 1
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.WITH_NL = False, non_local
    return build_resnet_backbone(cfg)


def doubled(base, fold=False):
    return DualStream(base, stem=STEM, style="torchvision", fold=fold)


def trunk_key(name, stems=STEMS):
    """The authors' key of a parameter of a doubled trunk."""
    if found := re.fullmatch(r"base\.(conv1|bn1)\.(rgb|ir)\.(\w+)", name):
        return f"{stems[found[2]]}{found[1]}.{found[3]}"
    name = name.removeprefix("base.")
    if found := re.fullmatch(r"mfa\.(\d)\.(channel|spatial)\.(.*)", name):
        return f"MFA{int(found[1]) + 1}.{'CNL' if found[2] == 'channel' else 'PNL'}.{found[3]}"
    if found := re.fullmatch(r"dee\.branches\.(\d)\.dilated\.(\d)\.weight", name):
        return f"DEE.FC{int(found[1]) + 1}{int(found[2]) + 1}.weight"
    if found := re.fullmatch(r"dee\.branches\.(\d)\.out\.(\w+)", name):
        return f"DEE.FC{int(found[1]) + 1}.{found[2]}"
    if name.startswith("NL_"):
        return re.sub(r"\.g\.(\w+)$", r".g.0.\1", name)
    return f"base_resnet.base.{name}"


def fill(module, key_of, training=False, salt=0):
    """Give every tensor the authors' weights; returns {our name: their key}."""
    keys = {name: key_of(name) for name in module.state_dict()}
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    state = {name: torch.from_numpy(inputs.weight(keys[name], shape, training, salt)) for name, shape in shapes.items()}
    module.load_state_dict(state)
    return keys


def head_key(name):
    return name.replace("bn.", "bottleneck.")


def modalities(**rows):
    return {Modality(name): value for name, value in rows.items()}


def assert_close(ours, theirs, tolerance=1e-5):
    ours, theirs = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours), np.asarray(theirs)
    difference = np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max()
    assert difference <= tolerance, difference


def assert_rows(ours, reference, key, every=1, tolerance=1e-5):
    """The first 512 columns and the length of the complete rows; of the reference, the first of `every` rows (one image)."""
    rows, norms = reference[key][::every], reference[f"{key}/norm"][::every]
    assert ours.shape[0] == len(rows)
    assert_close(ours[:, :512], rows, tolerance)
    assert_close(ours.norm(dim=1), norms, tolerance)


def one_image(case, modality):
    """The first image of an evaluation case, normalised, and the case's number of images."""
    rgb, ir, count, height, width, _ = inputs.EVAL[case]
    return inputs.normalised(inputs.images(rgb if modality == "rgb" else ir, count, height, width))[:1], count


def assert_step(reference, modules, losses, factor_10, skip=(), exact=True):
    """Losses, gradients, and the weights after one step of SGD against `train_step.json`.

    Args:
        modules: pairs of a module and its {our name: their key}.
        losses: by the authors' names, weighted.
        factor_10: their keys' prefixes that train at ten times the base rate.
        skip: prefixes of keys whose gradients are not compared.
        exact: float64; else float32 and its tolerances.
    """
    of_losses, tolerance = (1e-6, 1e-6) if exact else (1e-4, 1e-2)
    for name, value in losses.items():
        assert abs(value.item() - reference["losses"][name]) <= of_losses * abs(reference["losses"][name]), (name, value.item())
    named = {keys[n]: p for module, keys in modules for n, p in module.named_parameters()}
    trained = {key: p for key, p in named.items() if p.requires_grad}
    gradients = torch.autograd.grad(sum(losses.values()), list(trained.values()), allow_unused=True)
    grads = dict(zip(trained, gradients, strict=True))
    zero = set(reference["zero_gradient"])
    seen = 0
    for key, (norm, total, *first) in reference["grads"].items():
        if key in zero or key.startswith(tuple(skip) or "\0"):
            continue
        grad = grads[key]
        assert abs(grad.norm().item() - norm) <= tolerance * norm, key
        assert abs(grad.abs().sum().item() - total) <= tolerance * total, key
        if exact:
            assert np.abs(grad.flatten()[:3].numpy() - first).max() <= tolerance * norm, key
        seen += 1
    assert seen
    for key, grad in grads.items():
        assert (grad is None) == key.startswith(tuple(reference["without_gradient"])), key
    for p, grad in zip(trained.values(), grads.values(), strict=True):
        p.grad = grad
    base = reference["lr"] / 10
    groups = [[p for k, p in trained.items() if k.startswith(factor_10) is fast] for fast in (False, True)]
    optimizer = torch.optim.SGD(
        [{"params": groups[0], "lr": base}, {"params": groups[1], "lr": 10 * base}],
        momentum=0.9, nesterov=True, weight_decay=5e-4,
    )  # fmt: skip
    optimizer.step()
    checked = 0
    for key, (norm, *first) in reference["after"].items():
        if key in named and key not in zero:
            assert abs(named[key].norm().item() - norm) <= tolerance * norm, key
            assert_close(named[key].flatten()[:3], first, tolerance)
            checked += 1
    assert checked
    means = {keys.get(n): b for module, keys in modules for n, b in module.named_buffers()}
    for key, expected in reference["running_means"].items():
        assert abs(means[key].norm().item() - expected["norm"]) <= of_losses * expected["norm"], key


def train_setting(case, *modules, exact=True):
    """The batch and the modules, in training and without dropout, in float64 if `exact`."""
    for module in modules:
        module.to(torch.float64 if exact else torch.float32).train()
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    batch = inputs.train_batch(case)
    return {n: v.double() if exact and v.is_floating_point() else v for n, v in batch.items()}
