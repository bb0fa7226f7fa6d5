"""Pre-train a small plain ViT on pictures of synthetic people: what stands in for ImageNet weights in the demo.

It learns to name what a picture shows (garments, hair, bag, colours), never who it is. The file is written with timm's names
and a square position table, so the loader of a published ViT-B/16 reads it. None of the people is in the benchmark.

Letters: N pictures, D width of a token.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from tvilfm_plugin.data.augment.caj import LUMINANCE
from tvilfm_plugin.modeling.backbone_layouts import resize_position
from tvilfm_plugin.modeling.mip.parts import jigsaw_parts
from tvilfm_plugin.modeling.mip.vit import EPS, Block, init_linear, patch_grid
from tvilfm_plugin.modeling.schedules import warmup_cosine
from tvilfm_plugin.synthetic.people import Palette, Person, Shape
from tvilfm_plugin.synthetic.rendering import Camera, Studio, draw_look
from tvilfm_plugin.synthetic.strangers import draw_strangers, earlier_facts, picture_people, write_with_facts
from tvilfm_plugin.synthetic.writer import GENERATOR

logger = logging.getLogger("fastreid." + __name__)

MARK = "synthetic_pretraining"
# Other places than the benchmark's and the text tower's.
_VISIBLE = tuple(Camera(number, infrared=False) for number in range(21, 26))
_INFRARED = tuple(Camera(number, infrared=True) for number in range(26, 29))
_SHAPE = tuple(field.name for field in fields(Shape))
_COLOURS = tuple(field.name for field in fields(Palette) if field.name != "shades")


@dataclass(frozen=True)
class PretrainingSpec:
    """Everything that decides the weights.

    Attributes:
        width: D; depth, heads, mlp_ratio, patch, stride, parts, shift and groups as in MODEL.MIP.
        image_size: (H, W) of the pictures, as INPUT.SIZE_TRAIN.
        people: how many are drawn to learn from; `held_out` others measure the result.
        visible: pictures of each person in visible light.
        infrared: pictures of each person in infrared, of which no colours are asked.
        gray: share of the visible pictures that are made grey, of which no colours are asked either.
        moved: a picture is moved by up to so many pixels.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    patch: int
    stride: int
    parts: int
    shift: int
    groups: int
    image_size: tuple[int, int]
    people: int = 2000
    held_out: int = 100
    seed: int = 7
    visible: int = 5
    infrared: int = 3
    gray: float = 0.5
    moved: int = 3
    steps: int = 2500
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05


class Named(NamedTuple):
    """Share (fractions) of the attributes of people never seen that are named right; `guess`: by the most frequent value.

    `shape`: garments, patterns, hair, bag and build, in visible and infrared pictures; `colours`: in visible ones.
    """

    people: int
    shape: float
    shape_guess: float
    colours: float
    colours_guess: float


class PlainViT(nn.Module):
    """A ViT whose class token names attributes, with timm's parameter names.

    The position table belongs to a square grid and is resized to the pictures', as the loader does with a published one. The
    last block reads the class token among all patches, and among those of each part of MIP's jigsaw: at the start the class
    token looks everywhere alike and sees little more than the mean picture, which for long teaches the patches nothing. The
    parts are what MIP's local branches start from.
    """

    index: Tensor

    def __init__(self, spec: PretrainingSpec, outputs: int) -> None:
        """Args:
        spec: of the transformer and the pictures.
        outputs: of the head.
        """
        super().__init__()
        self.grid = patch_grid(spec.image_size, spec.patch, spec.stride)
        self.cls_token = nn.Parameter(torch.empty(1, 1, spec.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + max(self.grid) ** 2, spec.width))
        projection = nn.Conv2d(3, spec.width, spec.patch, spec.stride)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.blocks = nn.ModuleList(Block(spec.width, spec.heads, spec.mlp_ratio) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width, eps=EPS)
        # Behind a batch norm, as MIP's classifiers: at the start most of what varies is the same brightness everywhere.
        self.head = _head(spec.width, outputs)
        index = torch.tensor(jigsaw_parts(self.grid[0] * self.grid[1], spec.shift, spec.groups, spec.parts))
        self.register_buffer("index", index, persistent=False)
        self.head_parts = _head(spec.parts * spec.width, outputs)
        init_linear(self.blocks)
        for table in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)
        nn.init.normal_(projection.weight, std=math.sqrt(2 / (spec.patch**2 * spec.width)))

    def describe(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in -1..1 -> (N, 1 + parts, D): the class token among all patches, and among each part's."""
        patches = self.patch_embed["proj"](pictures).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = tokens + resize_position(self.pos_embed, self.grid)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        # Of the last block, only the class token is read.
        first, count = tokens[:, :1], len(self.index)
        whole = self.blocks[-1](first, tokens[:, 1:])
        pieces = self.blocks[-1](first.repeat_interleave(count, dim=0), tokens[:, self.index].flatten(0, 1))
        return self.norm(torch.cat([whole, pieces.unflatten(0, (-1, count))[:, :, 0]], dim=1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in -1..1 -> (N, outputs) of the class token, (N, outputs) of the parts."""
        described = self.describe(pictures)
        return self.head(described[:, 0]), self.head_parts(described[:, 1:].flatten(1))


def _head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, outputs))


def pretrain_vit(
    spec: PretrainingSpec,
    out: str | os.PathLike[str],
    *,
    avoid: Iterable[tuple[object, ...]] = (),
    workers: int = 1,
    progress: bool = True,
) -> Named:
    """Train a ViT and write its state dict, with timm's names, to `out` (facts beside it as .json).

    A file that was made by the same spec is left as it is.

    Args:
        avoid: `Person.looks` of the people of a benchmark; whoever is among them is not learned from.
        workers: processes that draw the pictures.
    """
    out = Path(out)
    identity = {**asdict(spec), "generator": GENERATOR}
    if (facts := earlier_facts(out, identity, MARK)) is not None:
        logger.info(f"{out} is pre-trained already.")
        return Named(**facts["held_out"])
    learners, others = draw_strangers(spec.people, spec.held_out, spec.seed, set(avoid))
    values = attribute_values([*learners, *others])
    draw = partial(_album, values=values, spec=spec, workers=workers, progress=progress)
    data, test = draw(learners, name="learn"), draw(others, name="test")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(spec.seed)
        vit = _train(data, values, spec, progress)
    result = _measure(vit, data, test, values, len(others))
    note = f"ViT that names attributes of {spec.people} synthetic people of its own, none of them in the benchmark"
    facts = {MARK: True, "spec": identity, "held_out": result._asdict(), "note": note}
    write_with_facts(out, lambda file: torch.save(vit.state_dict(), file), facts)
    return result


# --- people and pictures ----------------------------------------------------------------------------------------------


def attribute_values(people: Sequence[Person]) -> list[list[str]]:
    """The values of each attribute among these people: first what a shape has, then the colours."""
    return [
        *(sorted({getattr(person.shape, name) for person in people}) for name in _SHAPE),
        *(sorted({getattr(person.palette, name) for person in people}) for name in _COLOURS),
    ]


def attributes(person: Person, values: Sequence[Sequence[str]]) -> list[int]:
    """Which value of each attribute a person has, see `attribute_values`."""
    own = [*(getattr(person.shape, name) for name in _SHAPE), *(getattr(person.palette, name) for name in _COLOURS)]
    return [known.index(value) for known, value in zip(values, own, strict=True)]


class _Album(NamedTuple):
    """Pictures (n, 3, H, W) uint8, attribute values (n, attributes), whether each is in visible light (n,)."""

    pictures: Tensor
    labels: Tensor
    coloured: Tensor


def _album(
    people: Sequence[Person],
    *,
    values: Sequence[Sequence[str]],
    spec: PretrainingSpec,
    name: str,
    workers: int = 1,
    progress: bool = False,
) -> _Album:
    pictures = picture_people(partial(_take_pictures, spec, name), people, name, workers, progress)
    each = spec.visible + spec.infrared
    labels = torch.tensor([attributes(person, values) for person in people]).repeat_interleave(each, dim=0)
    coloured = (torch.arange(each) < spec.visible).repeat(len(people))
    return _Album(torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2).contiguous(), labels, coloured)


def _take_pictures(spec: PretrainingSpec, name: str, people: Sequence[tuple[int, Person]]) -> np.ndarray:
    studio = Studio(spec.image_size[0], spec.seed)
    images = []
    for number, person in people:
        for k in range(spec.visible + spec.infrared):
            rng = random.Random(f"pretrain/{spec.seed}/{name}/{number}/{k}")
            camera = rng.choice(_VISIBLE if k < spec.visible else _INFRARED)
            images.append(studio.photograph(person, draw_look(person, camera, rng, 0.0)))
    return np.stack(images)


# --- learning ---------------------------------------------------------------------------------------------------------


def _train(data: _Album, values: Sequence[Sequence[str]], spec: PretrainingSpec, progress: bool) -> PlainViT:
    vit = PlainViT(spec, sum(map(len, values))).train()
    tables = ("cls_token", "pos_embed")
    decayed = [p for name, p in vit.named_parameters() if p.ndim > 1 and name not in tables]
    others = [p for name, p in vit.named_parameters() if p.ndim <= 1 or name in tables]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, weight_decay=spec.weight_decay)
    schedule = warmup_cosine(optimizer, spec.steps)
    with tqdm(total=spec.steps, desc="pre-training the ViT", disable=None if progress else True, mininterval=1.0) as bar:
        for _ in range(spec.steps):
            rows = torch.randint(len(data.labels), (spec.batch_size,))
            pictures, gray = _augment(data.pictures[rows], spec)
            coloured = data.coloured[rows] & ~gray
            of_class, of_parts = (attribute_loss(logits, data.labels[rows], coloured, values) for logits in vit(pictures))
            loss = of_class + of_parts
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{of_class.item():.2f}", parts=f"{of_parts.item():.2f}", refresh=False)
    return vit.eval()


def _augment(pictures: Tensor, spec: PretrainingSpec) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) uint8 -> pictures in about -1..1: moved, mirrored, brighter or darker, grey; and which are grey (N,)."""
    count, (height, width), pad = len(pictures), spec.image_size, spec.moved
    padded = F.pad(pictures.float() / 255, (pad, pad, pad, pad))
    corners = torch.randint(2 * pad + 1, (count, 2)).tolist()
    moved = torch.stack([one[:, y : y + height, x : x + width] for one, (y, x) in zip(padded, corners, strict=True)])
    moved = torch.where(torch.rand(count, 1, 1, 1) < 0.5, moved.flip(3), moved)
    moved = moved * torch.empty(count, 1, 1, 1).uniform_(0.7, 1.3)
    gray = torch.rand(count) < spec.gray
    luminance = (moved * torch.tensor(LUMINANCE).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return torch.where(gray.view(count, 1, 1, 1), luminance, moved) * 2 - 1, gray


def attribute_loss(logits: Tensor, labels: Tensor, coloured: Tensor, values: Sequence[Sequence[str]]) -> Tensor:
    """Mean cross entropy over the attributes; colours are asked of coloured pictures only.

    Args:
        logits: (N, all values of all attributes).
        labels: (N, attributes).
        coloured: (N,) bool.
        values: of each attribute.
    """
    losses = []
    for n, of_attribute in enumerate(logits.split([len(known) for known in values], dim=1)):
        each = F.cross_entropy(of_attribute, labels[:, n], reduction="none")
        losses.append((each if n < len(_SHAPE) else each * coloured).mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def _measure(vit: PlainViT, data: _Album, test: _Album, values: Sequence[Sequence[str]], people: int) -> Named:
    logits = torch.cat([vit(part.float() / 127.5 - 1)[0] for part in test.pictures.split(256)])
    best = torch.stack([part.argmax(dim=1) for part in logits.split([len(known) for known in values], dim=1)], dim=1)
    shape, colours = slice(len(_SHAPE)), slice(len(_SHAPE), None)

    def right(named: Tensor, which: slice, rows: Tensor) -> float:
        return (named == test.labels)[rows][:, which].float().mean().item()

    everything = torch.ones_like(test.coloured)
    guess = data.labels.mode(dim=0).values.expand_as(test.labels)
    return Named(
        people,
        right(best, shape, everything),
        right(guess, shape, everything),
        right(best, colours, test.coloured),
        right(guess, colours, test.coloured),
    )
