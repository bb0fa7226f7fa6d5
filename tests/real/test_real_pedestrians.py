"""Real people of a street video: found, followed, cut out, encoded in colour and in grey, and found again."""

import numpy as np
import pytest
import real_parts
import torch
from test_real_weights import model_of

from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.tracker import CropEncoder

cv2 = pytest.importorskip("cv2")
if not hasattr(cv2, "HOGDescriptor"):
    pytest.skip("this OpenCV has no detector of people: pip install opencv-python-headless==4.14.0.94", allow_module_level=True)

STEP, SEEDS = 5, (0, 1, 2)  # every fifth frame is looked at


def overlap(a, b):
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width, height = (max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return width * height / (area(a) + area(b) - width * height)


@pytest.fixture(scope="module")
def tracks():
    """Lists of crops (BGR), one list for each person that was followed for four detections or more."""
    video = cv2.VideoCapture(str(real_parts.pedestrians()))
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    found, number = [], -1
    while (number := number + 1) >= 0:
        there, frame = video.read()
        if not there:
            break
        if number % STEP:
            continue
        boxes, scores = detector.detectMultiScale(frame, winStride=(8, 8), scale=1.05)
        open_tracks = [track for track in found if number - track[-1][0] <= 3 * STEP]
        for (x, y, w, h), score in zip(boxes, np.ravel(scores), strict=True):
            if score < 0.3:
                continue
            # The detector's window has a margin around the person.
            box = max(0, x + w // 8), max(0, y + h // 16), x + w - w // 8, y + h - h // 16
            near = max(open_tracks, key=lambda track: overlap(track[-1][1], box), default=None)
            seen = (number, box, frame[box[1] : box[3], box[0] : box[2]].copy())
            if near is not None and overlap(near[-1][1], box) > 0.2:
                near.append(seen)
                open_tracks = [track for track in open_tracks if track is not near]
            else:
                found.append([seen])
    return [[crop for _, _, crop in track] for track in found if len(track) >= 4]


def encoders(weights, seed):
    torch.manual_seed(seed)
    pretrained = ["MODEL.BACKBONE.PRETRAIN", bool(weights), "MODEL.BACKBONE.PRETRAIN_PATH", str(weights)]
    model = model_of("sysu_mobilenetv2.yml", *pretrained, "INPUT.SIZE_TRAIN", [128, 64], "INPUT.SIZE_TEST", [128, 64])
    retriever = Retriever(model, image_size=(128, 64))
    return [CropEncoder(retriever, modality=modality, order="bgr") for modality in ("rgb", "ir")]


def rank_1(tracks, weights, seed):
    """Percent of grey crops whose nearest visible image, of one per person, is of the same person; over ten draws."""
    visible, grey = encoders(weights, seed)
    people = np.repeat(np.arange(len(tracks)), [len(track) for track in tracks])
    crops = [crop for track in tracks for crop in track]
    colour = visible(crops)
    without = grey([np.repeat(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2) for crop in crops])
    rng, right = np.random.default_rng(seed), []
    for _ in range(10):
        gallery = np.array([rng.choice(np.flatnonzero(people == person)) for person in range(len(tracks))])
        queries = np.setdiff1d(np.arange(len(people)), gallery)
        right.append(np.mean((without[queries] @ colour[gallery].T).argmax(axis=1) == people[queries]))
    return 100 * float(np.mean(right))


def test_imagenet_weights_find_people_across_the_stems_and_random_ones_do_not(tracks):
    chance = 100 / len(tracks)
    pretrained = [rank_1(tracks, real_parts.mobilenetv2(), seed) for seed in SEEDS]
    random = [rank_1(tracks, "", seed) for seed in SEEDS]
    print(f"\n{len(tracks)} people, {sum(map(len, tracks))} crops, chance {chance:.1f}")
    print(f"R-1 with ImageNet weights {pretrained}, at random {random}")
    assert min(pretrained) > 4 * chance
    assert max(random) < 2 * chance


def test_detector_encoder_index_and_search_find_the_same_person(tracks):
    visible, _ = encoders(real_parts.mobilenetv2(), 0)
    early, late = [track[: len(track) // 2] for track in tracks], [track[len(track) // 2 :] for track in tracks]
    owners = np.repeat(np.arange(len(tracks)), [len(track) for track in early])
    vectors = visible([crop for track in early for crop in track])
    records = [Record(f"{number}.png", pid=int(owner)) for number, owner in enumerate(owners)]
    index = GalleryIndex.build(vectors, records, visible.retriever.fingerprint, say=None)
    found = [index.nearest(visible([track[0]])[0], 1)[0][0].pid for track in late]
    right = np.mean(np.array(found) == np.arange(len(tracks)))
    print(f"\n{100 * right:.1f} % of {len(tracks)} people are found where they were followed to")
    assert right > 0.3
