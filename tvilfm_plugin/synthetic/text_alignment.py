"""Align a small text tower with pictures of synthetic people: what stands in for CLIP's weights in the demo.

The tower and a small convolutional network learn, contrastively, which caption belongs to which picture. The network is thrown
away. The people are drawn for this purpose alone: none of them is in the benchmark that the tower is used on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.modeling.schedules import warmup_cosine
from tvilfm_plugin.modeling.text_encoder import TextEncoder
from tvilfm_plugin.synthetic.captioning import COLOURED, Statement, describe, observe, rephrase
from tvilfm_plugin.synthetic.people import Person
from tvilfm_plugin.synthetic.rendering import Camera, Studio, draw_look
from tvilfm_plugin.synthetic.strangers import draw_strangers, earlier_facts, picture_people, write_with_facts
from tvilfm_plugin.synthetic.writer import GENERATOR

logger = logging.getLogger("fastreid." + __name__)

MARK = "synthetic_alignment"
_CAMERAS = tuple(Camera(number, infrared=False) for number in range(11, 16))  # other places than the benchmark's


@dataclass(frozen=True)
class AlignmentSpec:
    """Everything that decides the aligned weights.

    Attributes:
        arch: JSON file of the text tower, in open_clip's model-config format.
        people: how many are drawn to learn from; `held_out` others measure the result.
        images: pictures per person, each with its own caption (half of the time reworded, a quarter without colours).
        height: of the pictures.
        wrong, missing: caption errors, as in the benchmark.
    """

    arch: str
    people: int = 2000
    held_out: int = 200
    seed: int = 7
    images: int = 4
    height: int = 64
    steps: int = 400
    batch_size: int = 128
    lr: float = 1e-3
    wrong: float = 0.12
    missing: float = 0.12


class Retrieval(NamedTuple):
    """Rank-1 (fractions) of captions of people never seen, against one other picture of each.

    `person`: the right person comes first; `colours`: one who wears the same colours does (real people: the person).
    """

    people: int
    chance: float
    person: float
    colours: float


def align_text(
    spec: AlignmentSpec,
    out: str | os.PathLike[str],
    *,
    avoid: Iterable[tuple[object, ...]] = (),
    workers: int = 1,
    progress: bool = True,
) -> Retrieval:
    """Train the tower of `spec.arch` and write its state dict, in CLIP's names, to `out` (facts beside it as .json).

    A file that was made by the same spec is left as it is.

    Args:
        avoid: `Person.looks` of the people of a benchmark; whoever is among them is not learned from.
        workers: processes that draw the pictures.
    """
    out = Path(out)
    identity = identity_of(spec)
    if (facts := earlier_facts(out, identity, MARK)) is not None:
        logger.info(f"{out} is aligned already.")
        return Retrieval(**facts["held_out"])
    learners, others = draw_strangers(spec.people, spec.held_out, spec.seed, set(avoid))
    data, test = (_album(people, spec, name, workers, progress) for people, name in ((learners, "learn"), (others, "test")))
    note = f"text tower aligned on {spec.people} synthetic people of its own, none of them in the benchmark"
    return learn_and_write(spec, out, data, test, {MARK: True, "spec": identity, "note": note}, others, progress)


def learn_and_write(
    spec: AlignmentSpec,
    out: Path,
    data: Album,
    test: Album,
    facts: Mapping[str, Any],
    people: Sequence[Person] = (),
    progress: bool = True,
) -> Retrieval:
    """Train the tower on one album, measure it on another, write it with the facts.

    Args:
        people: of the test album, where it is known what they wear.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(spec.seed)
        tower, eye, scale = _train(data, spec, progress)
        result = _measure(tower, eye, test, people)
    state = {name: value.detach().clone() for name, value in tower.state_dict().items()}
    state["logit_scale"] = scale.detach().clone()
    write_with_facts(out, lambda file: torch.save(state, file), {**facts, "held_out": result._asdict()})
    return result


def identity_of(spec: AlignmentSpec) -> dict[str, Any]:
    """The spec with the architecture's content for its path, so that moving the file changes nothing."""
    arch = json.loads(Path(spec.arch).read_text(encoding="utf-8"))
    return {**asdict(spec), "arch": arch, "generator": GENERATOR}


# --- people and pictures ----------------------------------------------------------------------------------------------


class Album(NamedTuple):
    """Pictures (n, 3, H, W) uint8, token ids of a few wordings of each one's caption (n, w, 77), whose they are (n,).

    Owners count from 0, and their pictures stand together.
    """

    pictures: Tensor
    tokens: Tensor
    owner: Tensor


def _album(people: Sequence[Person], spec: AlignmentSpec, name: str, workers: int, progress: bool) -> Album:
    taken = picture_people(partial(_take_pictures, spec, name), people, name, workers, progress)
    pictures = np.concatenate([images for images, _ in taken])
    wordings = [texts for _, some in taken for texts in some]
    return album_of(pictures, wordings, [n for n in range(len(people)) for _ in range(spec.images)])


def album_of(pixels: np.ndarray, wordings: Sequence[Sequence[str]], owner: Sequence[int]) -> Album:
    """An album of (n, H, W, 3) pixels, n times w texts and n owners; each distinct text is tokenised once."""
    distinct = {text: row for row, text in enumerate(dict.fromkeys(t for texts in wordings for t in texts))}
    table = tokenize(list(distinct))
    rows = torch.tensor([[distinct[text] for text in texts] for texts in wordings])
    return Album(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), table[rows], torch.tensor(owner))


def _take_pictures(
    spec: AlignmentSpec, name: str, people: Sequence[tuple[int, Person]]
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    studio = Studio(spec.height, spec.seed)
    images: list[np.ndarray] = []
    texts: list[tuple[str, ...]] = []
    for number, person in people:
        for k in range(spec.images):
            rng = random.Random(f"align/{spec.seed}/{name}/{number}/{k}")
            picture = studio.take(person, draw_look(person, rng.choice(_CAMERAS), rng, spec.wrong))
            statement = observe(person, picture.look, rng, wrong=spec.wrong, missing=spec.missing)
            colourless = Statement({a: v for a, v in statement.said.items() if a not in COLOURED}, (), ())
            wordings = [describe(statement, rng), describe(statement, rng), rephrase(statement, rng)]
            texts.append((*wordings, describe(colourless, rng)))
            images.append(picture.pixels)
    return np.stack(images), texts


# --- learning ---------------------------------------------------------------------------------------------------------


class _Eye(nn.Module):
    """The picture's side: four convolutions, then each row of the map keeps its place (a red top is not a red skirt)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        rows, widths = 8, (3, 32, 64, 128, 192)
        layers: list[nn.Module] = []
        for n, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layers += [
                nn.Conv2d(a, b, 3, stride=2 if n < 3 else 1, padding=1, bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.pool = nn.AdaptiveMaxPool2d((rows, 1))
        self.project = nn.Linear(widths[-1] * rows, dim)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, D)."""
        return self.project(self.pool(self.layers(pictures.float() / 127.5 - 1.0)).flatten(1))


def _train(data: Album, spec: AlignmentSpec, progress: bool) -> tuple[TextEncoder, _Eye, Tensor]:
    from tvilfm_plugin.data.open_clip_files.model import _build_text_tower

    arch = json.loads(Path(spec.arch).read_text(encoding="utf-8"))
    dim = arch["embed_dim"]
    tower = TextEncoder(_build_text_tower(dim, dict(arch["text_cfg"]), quick_gelu=bool(arch.get("quick_gelu"))))
    # Only the words that occur are trained: Adam over the whole table would cost more than the rest. Ids stay in order, so
    # the end of the text is still the largest.
    full = tower.token_embedding
    known, tokens = torch.unique(data.tokens, return_inverse=True)
    tower.token_embedding = nn.Embedding.from_pretrained(full.weight[known].detach().clone(), freeze=False)
    eye, scale = _Eye(dim), nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    groups: list[dict[str, Any]] = [
        {"params": [*tower.parameters(), *eye.parameters()]},
        {"params": [scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=spec.lr, weight_decay=0.02)
    schedule = warmup_cosine(optimizer, spec.steps)
    tower.train(), eye.train()
    with tqdm(total=spec.steps, desc="aligning the text tower", disable=None if progress else True, mininterval=1.0) as bar:
        for _ in range(spec.steps):
            rows = torch.randperm(len(data.owner))[: spec.batch_size]
            wording = torch.randint(tokens.shape[1], (len(rows),))
            pictures = data.pictures[rows]
            pictures = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, pictures.flip(3), pictures)
            texts = _encode_by_length(tower, tokens[rows, wording])
            loss = contrastive_loss(eye(pictures), texts, scale.clamp(max=math.log(100)))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.2f}", refresh=False)
    with torch.no_grad():
        full.weight[known] = tower.token_embedding.weight
    tower.token_embedding = full
    return tower.eval(), eye.eval(), scale


def _encode_by_length(tower: TextEncoder, tokens: Tensor) -> Tensor:
    """(N, L) token ids -> (N, D). Each of three groups of captions is cut to its own longest: a third less to compute."""
    order = tower.end_of_text(tokens).argsort()
    features = torch.cat([tower(tokens[part]) for part in order.chunk(3)])
    return features[order.argsort()]


def contrastive_loss(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE: row n of the (N, D) images belongs to row n of the (N, D) texts and to no other."""
    logits = log_scale.exp() * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


@torch.no_grad()
def _measure(tower: TextEncoder, eye: _Eye, test: Album, people: Sequence[Person]) -> Retrieval:
    """One caption per person against another picture of each, where there is one."""
    counts = torch.bincount(test.owner)
    first = counts.cumsum(0) - counts
    texts = F.normalize(tower(test.tokens[first, 0]), dim=1)
    pictures = F.normalize(eye(test.pictures[torch.where(counts > 1, first + 1, first)]), dim=1)
    best = (texts @ pictures.T).argmax(dim=1).tolist()
    right = [n == m for n, m in enumerate(best)]
    same = [people[n].palette == people[m].palette for n, m in enumerate(best)] if people else right
    return Retrieval(len(counts), 1 / len(counts), sum(right) / len(right), sum(same) / len(same))
