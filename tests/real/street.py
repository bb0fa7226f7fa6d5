"""People of a street video: detected, tracked, cut out; visible crops then look for the same people among grey ones.

    PYTHONPATH=.:tests python tests/real/street.py RUN [OTHER ...]

prints what grey pixels alone find, then what the stage-1 models of some runs (or model folders) find and the difference of each
to the first of them. The protocol:

- every third frame of vtest.avi (768 x 576, 10 frames a second); OpenCV's HOG detector, stride 8, scale 1.05, no threshold;
- tracks by overlap with SORT's settings (Bewley et al., ICIP 2016): the window moved on by the mean velocity of the last
  detections, the best one-to-one assignment, IoU above 0.3, the end with the first look that misses it (in a crowd, tracks that
  wait longer go on with somebody else); six detections or more make a person;
- a crop is the detector's window without its margin (Dalal and Triggs, CVPR 2005: 16 of 64 x 128 pixels on each side);
- a query is a visible crop; the gallery holds one crop of each person in grey, through the infrared stem, drawn 100 times; a
  crop whose grey picture is in the gallery is no query. Rank-1 over queries, its interval over people.

Who is who comes from the tracker: one person seen twice counts as two, which no encoder can mend.
"""

import functools
import itertools
import sys
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import real_parts
import torch
from scipy.optimize import linear_sum_assignment

from tvilfm_plugin.analysis.statistics import Interval, identity_bootstrap
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.tracker import CropEncoder

STEP, OVERLAP, LOST, LEAST = 3, 0.3, 1, 6
DRAWS = 100


class Sighting(NamedTuple):
    """One detection: the frame's number, the window (x1, y1, x2, y2), and the person in it, (h, w, 3) BGR."""

    frame: int
    window: np.ndarray
    crop: np.ndarray


def frames(step: int = STEP) -> Iterator[tuple[int, np.ndarray]]:
    """Every so manieth frame of the video and its number, (h, w, 3) BGR."""
    video = cv2.VideoCapture(str(real_parts.pedestrians()))
    for number in itertools.count():
        there, frame = video.read()
        if not there:
            return
        if number % step == 0:
            yield number, frame


def body(window: np.ndarray) -> np.ndarray:
    """(4,) whole pixels: a window without its margin."""
    x1, y1, x2, y2 = window.astype(int)
    aside, above = (x2 - x1) // 4, (y2 - y1) // 8
    return np.array([x1 + aside, y1 + above, x2 - aside, y2 - above])


def sightings(step: int = STEP) -> list[list[Sighting]]:
    """The detections of each frame that is looked at."""
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    looks = []
    for number, frame in frames(step):
        found = []
        for x, y, w, h in detector.detectMultiScale(frame, winStride=(8, 8), scale=1.05)[0]:
            window = np.array([x, y, x + w, y + h], float)
            x1, y1, x2, y2 = body(window).clip(0)
            found.append(Sighting(number, window, frame[y1:y2, x1:x2].copy()))
        looks.append(found)
    return looks


def expected(track: list[Sighting], frame: int) -> np.ndarray:
    """(4,) where the track's window is by then, at the mean velocity of its last four detections."""
    first, last = track[-4:][0], track[-1]
    if first is last:
        return last.window
    moved = (last.window - first.window).reshape(2, 2).mean(axis=0) / (last.frame - first.frame)
    return last.window + np.tile(moved * (frame - last.frame), 2)


def followed(looks: list[list[Sighting]], step: int = STEP) -> list[list[Sighting]]:
    """The sightings of each person."""
    from torchvision.ops import box_iou  # which may need the plugin's mends

    tracks: list[list[Sighting]] = []
    for found in filter(None, looks):
        now = found[0].frame
        open_tracks = [track for track in tracks if now - track[-1].frame <= LOST * step]
        new = set(range(len(found)))
        if open_tracks:
            windows = [np.stack([expected(track, now) for track in open_tracks]), np.stack([one.window for one in found])]
            overlap = box_iou(*map(torch.from_numpy, windows)).numpy()
            for row, column in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[row, column] > OVERLAP:
                    open_tracks[row].append(found[column])
                    new.remove(int(column))
        tracks += [[found[n]] for n in sorted(new)]
    return [track for track in tracks if len(track) >= LEAST]


@functools.cache
def people() -> list[list[np.ndarray]]:
    """All of it, once: the crops (BGR) of each person."""
    return [[one.crop for one in track] for track in followed(sightings())]


class Features(NamedTuple):
    """(N, D) unit vectors of the same N crops in grey and in colour, and (N,) whose they are."""

    grey: np.ndarray
    colour: np.ndarray
    people: np.ndarray


def features(retriever: Retriever, crops_of: list[list[np.ndarray]]) -> Features:
    visible, infrared = (CropEncoder(retriever, modality=modality, order="bgr") for modality in ("rgb", "ir"))
    crops = [crop for person in crops_of for crop in person]
    owners = np.repeat(np.arange(len(crops_of)), [len(person) for person in crops_of])
    return Features(infrared([cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for crop in crops]), visible(crops), owners)


def grey_pixels(followed: list[list[np.ndarray]]) -> Features:
    """The crops themselves, at 24 x 12 grey pixels: what needs no network."""
    grey = [cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for person in followed for crop in person]
    small = [cv2.resize(crop, (12, 24), interpolation=cv2.INTER_AREA) for crop in grey]
    rows = np.stack(small).reshape(len(small), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Features(rows, rows, np.repeat(np.arange(len(followed)), [len(person) for person in followed]))


def rank_1(found: Features, seed: int = 0) -> Interval:
    """Percent of visible queries whose nearest grey crop, of one per person, is of the same person."""
    return identity_bootstrap(found_first(found, seed), found.people)


def found_first(found: Features, seed: int = 0) -> np.ndarray:
    """(N,) of each visible query, the percentage of the draws in which it is found."""
    rng, count = np.random.default_rng(seed), found.people.max() + 1
    right = np.full((DRAWS, len(found.people)), np.nan)
    for draw in right:
        gallery = np.array([rng.choice(np.flatnonzero(found.people == person)) for person in range(count)])
        draw[:] = (found.colour @ found.grey[gallery].T).argmax(axis=1) == found.people
        draw[gallery] = np.nan
    return 100 * np.nanmean(right, axis=0)


def said(one: Interval, sign: str = "") -> str:
    return f"{one.mean:{sign}.1f} [{one.low:{sign}.1f}, {one.high:{sign}.1f}]"


def main(*runs: str) -> None:
    print(f"{len(people())} people, {sum(map(len, people()))} crops; R-1 [95 % over people], difference to the first run")
    print(f"grey pixels: {said(rank_1(grey_pixels(people())))}")
    first = None
    for run in runs:
        found = features(Retriever.from_run(run, device="cpu"), people())
        each = found_first(found)
        first = each if first is None else first
        print(f"{run}: {said(rank_1(found))}, {said(identity_bootstrap(each - first, found.people), '+')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
