"""Real people of a street video: found, followed, cut out, encoded in colour and in grey, and found again (see street.py)."""

import numpy as np
import pytest
import real_parts
import torch
from test_real_weights import model_of

from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.retriever import Retriever

street = pytest.importorskip("street", reason="OpenCV is not installed: pip install opencv-python-headless==4.14.0.94")
if not hasattr(street.cv2, "HOGDescriptor"):
    pytest.skip("this OpenCV has no detector of people: pip install opencv-python-headless==4.14.0.94", allow_module_level=True)

SEEDS = (0, 1, 2)
SIZE = (288, 144)  # that of the config


@pytest.fixture(scope="module")
def people():
    found = street.people()
    print(f"\n{len(found)} people, {sum(map(len, found))} crops, chance {100 / len(found):.1f}")
    return found


def mobilenet(weights, seed=0):
    torch.manual_seed(seed)
    start = ["MODEL.BACKBONE.PRETRAIN", bool(weights), "MODEL.BACKBONE.PRETRAIN_PATH", str(weights)]
    return model_of("sysu_mobilenetv2.yml", *start)


@pytest.fixture(scope="module")
def pretrained(people):
    return Retriever(mobilenet(real_parts.mobilenetv2()), image_size=SIZE)


@pytest.fixture(scope="module")
def features(people, pretrained):
    return street.features(pretrained, people)


def test_imagenet_weights_find_people_across_the_stems_and_random_ones_do_not(people, features):
    chance = 100 / len(people)
    found = [street.rank_1(features, seed) for seed in SEEDS]
    # Every third crop is enough: random weights give all pictures the same feature.
    few = [person[::3] for person in people]
    random = [Retriever(mobilenet("", seed), image_size=SIZE) for seed in SEEDS]
    random = [street.rank_1(street.features(retriever, few), seed) for seed, retriever in enumerate(random)]
    pixels = [street.rank_1(street.grey_pixels(people), seed) for seed in SEEDS]
    for name, results in (("ImageNet weights", found), ("random weights", random), ("grey pixels", pixels)):
        print(f"R-1, {name}:", *map(street.said, results))
    assert min(one.mean for one in found) >= 30 > max(one.mean for one in pixels)
    assert max(one.mean for one in random) < 2 * chance


def test_detector_encoder_index_and_search_find_the_same_person(people, pretrained, features):
    rows = [np.flatnonzero(features.people == person) for person in range(len(people))]
    early = np.concatenate([own[: len(own) // 2] for own in rows])
    records = [Record(f"{row}.png", pid=int(features.people[row])) for row in early]
    index = GalleryIndex.build(features.colour[early], records, pretrained.fingerprint, say=None)
    found = [index.nearest(features.colour[own[len(own) // 2]], 1)[0][0].pid for own in rows]
    right = np.mean(np.array(found) == np.arange(len(people)))
    print(f"\n{100 * right:.1f} % of {len(people)} people are found where they were followed to")
    assert right > 0.3
