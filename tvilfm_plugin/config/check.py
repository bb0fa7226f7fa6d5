"""One check of a whole config: values, contradictions, and fast-reid's keys that nothing of the run reads."""

import functools
import inspect
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
from fastreid.config import CfgNode

from tvilfm_plugin.config.errors import ConfigError
from tvilfm_plugin.config.names import registered
from tvilfm_plugin.config.nodes import OURS, TriConfig, flat
from tvilfm_plugin.keys.host import (
    HOST_KEYS,
    HOST_SAMPLER,
    HOST_SCHEDULES,
    READ_ALWAYS,
    READ_BY_PART,
    READ_WITH,
    SAMPLER,
    UNREAD,
)
from tvilfm_plugin.keys.key import Key, shown

logger = logging.getLogger("fastreid." + __name__)
DEVICE = re.compile(r"cpu|mps|(cuda|xpu)(:(?P<number>\d{1,3}))?")


def check_config(cfg: CfgNode, training: bool = True) -> list[str]:
    """Raise a `ConfigError` at the first fault; gives warnings. Without `training` only what an evaluation reads is checked."""
    values = flat(cfg)
    for key in (*HOST_KEYS, *OURS.values()):
        if key.name in values and _applies(key, cfg, training) and (problem := key.problem(values[key.name], registered)):
            raise ConfigError(_at(cfg, key.name, problem))
    for name, problem in _contradictions(cfg, training):
        raise ConfigError(_at(cfg, name, problem))
    warnings = []
    for name, problem, wrong in _unread(cfg, values, training):
        if wrong:
            raise ConfigError(_at(cfg, name, problem))
        warnings.append(_at(cfg, name, problem))
    return warnings


def _at(cfg: CfgNode, key: str, problem: str) -> str:
    origin = cfg.origin(key) if isinstance(cfg, TriConfig) else ""
    return f"{origin}: {problem}" if ", line " in origin else problem


def _applies(key: Key, cfg: CfgNode, training: bool) -> bool:
    if key.name == "MODEL.LOSSES.NAME":
        return training and "choose_losses" in _sources(cfg)["model"]
    if key.name == "DATASETS.TESTS":
        return bool(cfg.DATASETS.TESTS)
    return training or not key.name.startswith(("SOLVER.", "DATALOADER.", "DATASETS.NAMES", "INPUT.FLIP", "INPUT.PADDING"))


def _contradictions(cfg: CfgNode, training: bool) -> Iterator[tuple[str, str]]:
    """(key, sentence) of values that are each possible but not together."""
    device = DEVICE.fullmatch(cfg.MODEL.DEVICE)
    if not device:
        yield "MODEL.DEVICE", f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; choices are cpu, cuda, cuda:N, mps, xpu."
    elif int(device["number"] or 0) >= max(1, torch.cuda.device_count()) and device[1] == "cuda":
        yield "MODEL.DEVICE", f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but this machine has {torch.cuda.device_count()} GPUs."
    if not cfg.OUTPUT_DIR.strip():
        yield "OUTPUT_DIR", "OUTPUT_DIR is empty; name the folder of the run, e.g. logs/mine."
    if "human" in cfg.TEST.TEXT_SOURCES and not cfg.TEST.HUMAN_TEXTS:
        yield "TEST.TEXT_SOURCES", "TEST.TEXT_SOURCES holds 'human', but TEST.HUMAN_TEXTS names no file of people's phrases."
    if 0 in cfg.DATASETS.SHOTS and len(cfg.DATASETS.SHOTS) > 1:
        yield "DATASETS.SHOTS", f"DATASETS.SHOTS is {shown(cfg.DATASETS.SHOTS)}; 0, one gallery of every image, stands alone."
    if not training:
        return
    solver, losses = cfg.SOLVER, cfg.MODEL.LOSSES
    if solver.MAX_EPOCH == 0 and not cfg.TEST.UNTRAINED:
        yield "SOLVER.MAX_EPOCH", (
            "SOLVER.MAX_EPOCH is 0, so nothing would be trained; give at least 1, or TEST.UNTRAINED True to evaluate the model "
            "as it starts."
        )
    if losses.WEIGHTS and len(losses.WEIGHTS) != len(losses.NAME):
        yield "MODEL.LOSSES.WEIGHTS", (
            f"MODEL.LOSSES.WEIGHTS has {len(losses.WEIGHTS)} entries for the {len(losses.NAME)} losses {tuple(losses.NAME)}."
        )
    if solver.SCHED in HOST_SCHEDULES and solver.WARMUP_EPOCHS >= 0:
        yield "SOLVER.WARMUP_EPOCHS", (
            f"SOLVER.WARMUP_EPOCHS is {solver.WARMUP_EPOCHS}, but SOLVER.SCHED {solver.SCHED} is fast-reid's, which warms up "
            "in iterations: set SOLVER.SCHED WarmupMultiStep, or SOLVER.WARMUP_EPOCHS -1."
        )
    if solver.SCHED not in HOST_SCHEDULES and (solver.WARMUP_ITERS or solver.DELAY_EPOCHS):
        yield "SOLVER.WARMUP_ITERS", (
            f"SOLVER.SCHED {solver.SCHED} counts whole epochs; set SOLVER.WARMUP_ITERS 0 and SOLVER.DELAY_EPOCHS 0 beside it, "
            f"or SOLVER.SCHED {HOST_SCHEDULES[0]} for fast-reid's own schedule."
        )
    for name, bounds in (("INPUT.BLUR_SIGMA", cfg.INPUT.BLUR_SIGMA), ("INPUT.CAJ.ERASING_AREA", cfg.INPUT.CAJ.ERASING_AREA)):
        if bounds[0] > bounds[1]:
            yield name, f"{name} is {shown(bounds)}; the lower bound comes first."


def _unread(cfg: CfgNode, values: dict[str, Any], training: bool) -> Iterator[tuple[str, str, bool]]:
    """(key, sentence, whether it is an error) of fast-reid's keys that differ from its default and that nothing reads."""
    from fastreid.config import get_cfg as host_cfg

    if training and values[SAMPLER] == HOST_SAMPLER:
        yield SAMPLER, (
            f"{SAMPLER} is {HOST_SAMPLER}, fast-reid's default, which draws single images; IdentityPairSampler draws the pairs "
            "of this run. Name it in the config."
        ), False
    elif training and values[SAMPLER] not in registered("SAMPLER") != ():
        yield SAMPLER, f"{SAMPLER} is {values[SAMPLER]!r}; choices are {', '.join(registered('SAMPLER'))}.", True
    defaults = flat(host_cfg())
    for name, default in defaults.items():
        if name in OURS or _same(values[name], default) or not training and not name.startswith("TEST."):
            continue
        said = f"{name} is {shown(values[name])}, but no Tri- run reads it: "
        for beginning, instead in UNREAD.items():
            if name.startswith(beginning):
                yield name, f"{said}{instead}. Leave it out.", True
        for section, part in READ_BY_PART.items():
            if name.startswith(f"{section}.") and name not in READ_ALWAYS:
                word = name.split(".")[2]
                if not re.search(rf"\.{word}\b", _sources(cfg)[part]):
                    owner = _parts(cfg)[part].__name__
                    yield name, f"{name} is {shown(values[name])}, but {owner} does not read it. Leave it out.", True
        for beginning, (decides, read_under) in READ_WITH.items():
            if name.startswith(beginning) and values[decides] not in read_under:
                wanted = " or ".join(read_under)
                yield name, f"{name} is {shown(values[name])}, but it is read with {decides} {wanted} only.", False
    for section in ("INPUT.FLIP", "INPUT.PADDING"):
        inner = f"{section}.{'PROB' if section.endswith('FLIP') else 'SIZE'}"
        if training and not values[f"{section}.ENABLED"] and not _same(values[inner], defaults[inner]):
            yield inner, f"{inner} is {values[inner]}, but {section}.ENABLED is False.", False


def _same(a: Any, b: Any) -> bool:
    return list(a) == list(b) if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) else bool(a == b)


def _parts(cfg: CfgNode) -> dict[str, Any]:
    """What is registered under the names of a config: backbone (the base of a dual stream), head and model."""
    from fastreid.modeling.backbones import BACKBONE_REGISTRY
    from fastreid.modeling.heads import REID_HEADS_REGISTRY
    from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

    backbone = cfg.MODEL.BACKBONE.NAME
    backbone = cfg.MODEL.DUAL_STREAM.BASE if backbone == "build_dual_stream_backbone" else backbone
    return {
        # A name that nobody registered is refused elsewhere.
        "backbone": BACKBONE_REGISTRY._obj_map.get(backbone),
        "head": REID_HEADS_REGISTRY._obj_map.get(cfg.MODEL.HEADS.NAME),
        "model": META_ARCH_REGISTRY._obj_map.get(cfg.MODEL.META_ARCHITECTURE),
    }


def _sources(cfg: CfgNode) -> dict[str, str]:
    """The source of those parts, with that of what they inherit from."""
    return {name: _source(part) for name, part in _parts(cfg).items()}


@functools.cache
def _source(part: Any) -> str:
    if part is None:
        return ""
    classes = part.__mro__ if isinstance(part, type) else (part,)
    modules = dict.fromkeys(one.__module__ for one in classes)
    texts = []
    for name in modules:
        if not name.startswith(("torch.", "builtins")):
            try:
                texts.append(inspect.getsource(sys.modules[name]))
            except (OSError, TypeError, KeyError):  # typed into a terminal: nothing is known of it
                texts.append("")
    return "\n".join(texts)
