"""A contact sheet: the same people before visible cameras and before infrared ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tvilfm_plugin.synthetic.people import Person
from tvilfm_plugin.synthetic.rendering import Camera, Studio, draw_look

SHEET_CAMERAS = (Camera(1, False), Camera(2, False), Camera(4, False), Camera(3, True), Camera(6, True))


def contact_sheet(people: Sequence[Person], studio: Studio, *, columns: int = 12) -> Image.Image:
    """Photograph people side by side, a row per camera, people who share a grid next to each other.

    Args:
        people: the first `columns` in the order of their blocks are shown.
    """
    shown = sorted(people, key=lambda person: (person.block, str(person.shape)))[:columns]
    rows = []
    for camera in SHEET_CAMERAS:
        images = []
        for n, person in enumerate(shown):
            look = draw_look(person, camera, random.Random(f"sheet/{camera.number}/{n}"), wrong=0.0)
            images.append(studio.photograph(person, look))
        rows.append(np.concatenate(images, axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))
