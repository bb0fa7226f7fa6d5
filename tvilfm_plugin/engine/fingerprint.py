"""What a data set is, in a few hashes: the identity of a run and a protocol card name it by them."""

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from tvilfm_plugin.data.datasets.base import TriDataset
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.modality import Modality

SAMPLE = 4096
"""Bytes in the middle of a file that stand for its content."""


class Fingerprint(NamedTuple):
    """Of a list of images.

    Attributes:
        images: how many.
        list: sha256 of every path (below the data set), person, camera and size.
        times: sha256 of when they were written; a copy has others.
        content: sha256 of a sample of every file; read only where `times` leaves a doubt.
        captions: sha256 of their texts and rephrases; "" without.
    """

    images: int
    list: str
    times: str
    content: str
    captions: str


def fingerprint(data: TriDataset, items: Sequence[Item], text: bool) -> Fingerprint:
    """The fingerprint of some of a data set's images, in their order, with or without their captions."""
    listed, times = hashlib.sha256(), hashlib.sha256()
    for item in items:
        status = os.stat(item.path)
        listed.update(f"{data.relative(item.path)}\t{item.pid}\t{item.camid}\t{status.st_size}\n".encode())
        times.update(f"{status.st_mtime_ns}\n".encode())
    key = listed.hexdigest(), times.hexdigest()
    if key not in _CONTENTS:  # both stages of a run, and its evaluations, ask for the same files
        _CONTENTS[key] = _content(items)
    return Fingerprint(len(items), *key, _CONTENTS[key], _captions(data, items) if text else "")


_CONTENTS: dict[tuple[str, str], str] = {}


def _content(items: Sequence[Item]) -> str:
    digest = hashlib.sha256()
    for item in items:
        with open(item.path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - SAMPLE) // 2)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def _captions(data: TriDataset, items: Sequence[Item]) -> str:
    digest = hashlib.sha256()
    infrared = {item.path for item in data.train_ir}
    for item in items:
        bank = data.captions[Modality.IR if item.path in infrared else Modality.RGB]
        caption = bank[data.relative(item.path)]
        digest.update(f"{caption.text}\t{caption.rephrase}\n".encode())
    return digest.hexdigest()
