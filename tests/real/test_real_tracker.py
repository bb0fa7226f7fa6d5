"""BoxMOT on the street video with our encoder and without: does a person who was hidden for a second keep the number?

Nobody has labelled the video, so the truth is made: people whom overlap follows without a gap (see street.py; every frame here)
are hidden from the tracker for 10 to 20 frames (1 to 2 seconds) somewhere in their track, while everybody else's detections
stay. A switch is another number after the gap than before it; beside it stands how often the number changes
along the same tracks where nobody is hidden. Who is followed without a gap is easy for motion, so this says little of crowds.
"Without" is the tracker's own switch (BoT-SORT), or one feature for everybody (StrongSORT has no switch).
"""

import numpy as np
import pytest
import real_parts
import torch
from test_real_pedestrians import SIZE, mobilenet, street

from tvilfm_plugin.analysis.statistics import identity_bootstrap, paired_randomisation
from tvilfm_plugin.retrieval.frame_encoder import FrameEncoder
from tvilfm_plugin.retrieval.retriever import Retriever

boxmot = pytest.importorskip("boxmot", reason="BoxMOT is not installed (AGPL; in an environment of its own: boxmot==25.0.0)")
structures = pytest.importorskip("boxmot.structures")
specs = pytest.importorskip("boxmot.trackers.specs")

SHORTEST, LONGEST, AROUND = 10, 20, 5  # frames hidden, and detections before and after them
DRAWS = 5
STILL = (("use_cmc", False),)  # the camera does not move; StrongSORT cannot be told
NONE = "without"


def detections(boxes, number, features=None):
    rows, seen = torch.from_numpy(boxes), None if features is None else torch.from_numpy(features)
    return structures.Detections(
        geometry=structures.Boxes(rows), scores=torch.full((len(rows),), 0.9), sample_id=str(number),
        class_ids=torch.zeros(len(rows), dtype=torch.int64), embeddings=seen,
    )  # fmt: skip


@pytest.fixture(scope="module")
def walked():
    """The boxes of each frame, and (frame, box) of each person's detections."""
    looks = street.sightings(step=1)
    rows = {id(one): (look, n) for look, found in enumerate(looks) for n, one in enumerate(found)}
    people = [[rows[id(one)] for one in track] for track in street.followed(looks, step=1)]
    return [np.array([street.body(one.window) for one in found], np.float32).reshape(-1, 4) for found in looks], people


@pytest.fixture(scope="module")
def features(walked):
    """Encoder -> the features of each frame's boxes."""
    encoders = {"ImageNet": Retriever(mobilenet(real_parts.mobilenetv2()), image_size=SIZE)}
    encoders["shipped example"] = Retriever.from_pretrained("example")
    found = {NONE: [np.full((len(boxes), 4), 0.5, np.float32) for boxes in walked[0]]}
    for name, retriever in encoders.items():
        for modality, kind in (("rgb", "colour"), ("ir", "grey")):
            encoder, rows = FrameEncoder(retriever, modality=modality), []
            for (number, frame), boxes in zip(street.frames(1), walked[0], strict=True):
                grey = np.repeat(street.cv2.cvtColor(frame, street.cv2.COLOR_BGR2GRAY)[:, :, None], 3, axis=2)
                image = torch.from_numpy((frame[:, :, ::-1] if modality == "rgb" else grey).transpose(2, 0, 1).copy())
                (row,) = encoder.encode([structures.Frame(image, str(number))], [detections(boxes, number)])
                rows.append(row.numpy())
            found[f"{name}, {kind}"] = rows
    return found


def hidden(people, seed):
    """Person -> the gap in the track, as begin and end."""
    rng, gaps = np.random.default_rng(seed), {}
    for person, track in enumerate(people):
        if len(track) >= SHORTEST + 2 * AROUND:
            length = int(rng.integers(SHORTEST, min(LONGEST, len(track) - 2 * AROUND) + 1))
            begin = int(rng.integers(AROUND, len(track) - AROUND - length + 1))
            gaps[person] = begin, begin + length
    return gaps


def numbered(tracker, options, walked, features, gaps):
    """(frame, box) -> the tracker's number; what it leaves out is left out."""
    boxes, people = walked
    gone = {row for person, (begin, end) in gaps.items() for row in people[person][begin:end]}
    made = boxmot.create_tracker(specs.TrackerSpec(tracker, options=options))
    noise = torch.randint(256, (3, 576, 768), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = {}
    for number, (all_boxes, rows) in enumerate(zip(boxes, features, strict=True)):
        kept = [n for n in range(len(all_boxes)) if (number, n) not in gone]
        # Pixels serve to find out how the camera moved, nothing else: any picture that stays the same will do.
        tracks = made.update(detections(all_boxes[kept], number, rows[kept]), structures.Frame(noise, str(number)))
        for one, n in zip(tracks.track_ids.tolist(), tracks.detection_indices.tolist(), strict=True):
            found[number, kept[n]] = one
    return found


def switches(tracker, options, walked, features):
    """Changes without a gap, and (DRAWS, people) whether the number after the gap is another; NaN: the tracker has none."""
    people = walked[1]
    plain = numbered(tracker, options, walked, features, {})
    known = [[plain[row] for row in track if row in plain] for track in people]
    changes = sum(a != b for track in known for a, b in zip(track, track[1:], strict=False))
    found = np.full((DRAWS, len(people)), np.nan)
    for seed in range(DRAWS):
        gaps = hidden(people, seed)
        numbers = numbered(tracker, options, walked, features, gaps)
        for person, (begin, end) in gaps.items():
            track = people[person]
            before, after = ([numbers[row] for row in part if row in numbers] for part in (track[:begin], track[end:]))
            if before and after:
                found[seed, person] = before[-1] != after[0]
    return changes, found


def test_a_tracker_with_our_encoder(walked, features, capsys):
    trackers = {("strongsort", name): ((), rows) for name, rows in features.items()}
    trackers |= {("botsort", name): ((*STILL, ("use_embeddings", name != NONE)), rows) for name, rows in features.items()}
    found = {key: switches(key[0], options, walked, rows) for key, (options, rows) in trackers.items()}
    with capsys.disabled():
        print(f"\n{len(walked[1])} people, {len(hidden(walked[1], 0))} of them hidden in each of {DRAWS} draws")
        who = np.tile(np.arange(len(walked[1])), DRAWS)
        for (tracker, name), (changes, changed) in found.items():
            blind = found[tracker, NONE][1]
            share = identity_bootstrap(100 * changed.ravel(), who)
            known = np.where(np.isnan(blind + changed), np.nan, 100.0).ravel()
            less = paired_randomisation(known * blind.ravel(), known * changed.ravel(), who)
            print(f"{tracker}, {name}: {share.mean:.1f} [{share.low:.1f}, {share.high:.1f}] % switched, ", end="")
            print(f"{less.difference:+.1f} [{less.low:+.1f}, {less.high:+.1f}], p {less.p_value:.3f}; without a gap {changes}")
    for name in features:
        if name != NONE:
            assert np.nanmean(found["strongsort", name][1]) < np.nanmean(found["strongsort", NONE][1])
            assert found["strongsort", name][0] < found["strongsort", NONE][0]
