"""The text tower aligned on real people and what was written of them: CUHK-PEDES, ICFG-PEDES, RSTPReid, ORBench."""

import hashlib
import logging
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tvilfm_plugin.data.resize import read_resized
from tvilfm_plugin.data.text_person import Captioned, read_captioned
from tvilfm_plugin.synthetic.strangers import earlier_facts
from tvilfm_plugin.synthetic.text_alignment import Album, AlignmentSpec, Retrieval, album_of, identity_of, learn_and_write

logger = logging.getLogger("fastreid." + __name__)
MARK = "text_alignment"
WORDINGS = 2


def align_text_person(
    spec: AlignmentSpec, key: str, out: str | os.PathLike[str], *, root: str, folder: str = "", progress: bool = True
) -> Retrieval:
    """Train the tower of `spec.arch` on a data set's training people and measure it on those of its validation split.

    Where it has none, `spec.held_out` training people are kept for that; test people are never looked at.

    Args:
        spec: `people` is the most that are learned from, `images` the most of each.
        key: of the data set.
        out: file of the state dict, in CLIP's names; a file that was made from the same is left as it is.
        root, folder: where the data set lies.
    """
    out = Path(out)
    images = [image for image in read_captioned(key, root, folder) if image.captions]
    learners, others = _split(images, spec)
    listed = "\n".join(f"{Path(i.path).name} {i.pid} {' | '.join(i.captions)}" for i in (*learners, *others))
    identity = {**identity_of(spec), "dataset": key, "list": hashlib.sha256(listed.encode()).hexdigest()}
    if (facts := earlier_facts(out, identity, MARK)) is not None:
        logger.info(f"{out} is aligned already.")
        return Retrieval(**facts["held_out"])
    people = len({image.pid for image in learners})
    note = f"text tower aligned on {people} people of {key}, under that data set's terms"
    data, test = (_album(some, spec, name, progress) for some, name in ((learners, "learn"), (others, "test")))
    return learn_and_write(spec, out, data, test, {MARK: True, "spec": identity, "note": note}, progress=progress)


def _split(images: Sequence[Captioned], spec: AlignmentSpec) -> tuple[list[Captioned], list[Captioned]]:
    """Images to learn from and to be measured on, each sorted by person, at most `spec.images` of one."""
    by_split: dict[str, dict[int, list[Captioned]]] = {}
    for image in images:
        by_split.setdefault(image.split, {}).setdefault(image.pid, []).append(image)
    train, held = by_split.get("train", {}), by_split.get("val", {})
    rng = random.Random(spec.seed)
    order = sorted(train)
    rng.shuffle(order)
    if not held:
        count = min(spec.held_out, len(order) // 2)
        held, order = {pid: train[pid] for pid in order[:count]}, order[count:]
    learners = {pid: train[pid] for pid in sorted(order[: spec.people])}
    if not learners or not held:
        raise ValueError(f"There are {len(learners)} people to learn from and {len(held)} to be measured on; both are needed.")
    return tuple(_some(people, spec.images, rng) for people in (learners, held))  # type: ignore[return-value]


def _some(people: Mapping[int, Sequence[Captioned]], most: int, rng: random.Random) -> list[Captioned]:
    return [one for pid in sorted(people) for one in rng.sample(list(people[pid]), min(most, len(people[pid])))]


def _album(images: Sequence[Captioned], spec: AlignmentSpec, name: str, progress: bool) -> Album:
    """Pictures that cannot be read are left out and counted."""
    pixels, kept, bad = [], [], []
    for image in tqdm(images, desc=f"reading pictures to {name}", unit="picture", disable=None if progress else True):
        try:
            pixels.append(read_resized(image.path, (spec.height, spec.height // 2)))
            kept.append(image)
        except OSError as error:
            bad.append(f"{image.path} ({error})")
    if bad:
        logger.warning(f"{len(bad)} of {len(images)} pictures cannot be read and are left out, e.g. {bad[0]}")
    if not kept:
        raise FileNotFoundError(f"None of {len(images)} pictures can be read, e.g. {bad[0]}")
    number = {pid: n for n, pid in enumerate(dict.fromkeys(image.pid for image in kept))}
    wordings = [[image.captions[n % len(image.captions)] for n in range(WORDINGS)] for image in kept]
    return album_of(np.stack(pixels), wordings, [number[image.pid] for image in kept])
