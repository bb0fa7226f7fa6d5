"""A data set in the layout of Market-1501, and a small fast-reid config for it: what stock users start from."""

from pathlib import Path

import numpy as np
from PIL import Image

CONFIG = """
MODEL:
  DEVICE: cpu
  BACKBONE: {NAME: build_resnet_backbone, DEPTH: 18x, FEAT_DIM: 512, PRETRAIN: False}
  HEADS: {NAME: EmbeddingHead, NORM: BN, WITH_BNNECK: True, POOL_LAYER: GlobalAvgPool, NECK_FEAT: before}
  LOSSES: {NAME: [CrossEntropyLoss, TripletLoss]}
INPUT: {SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32], FLIP: {ENABLED: True}}
DATASETS: {NAMES: [Market1501], TESTS: [Market1501]}
DATALOADER: {SAMPLER_TRAIN: NaiveIdentitySampler, NUM_INSTANCE: 4, NUM_WORKERS: 0}
SOLVER: {MAX_EPOCH: 2, BASE_LR: 0.00035, WARMUP_ITERS: 0, STEPS: [40], IMS_PER_BATCH: 32, CHECKPOINT_PERIOD: 1}
TEST: {EVAL_PERIOD: 1, IMS_PER_BATCH: 64}
"""


def write_market(root: Path, identities: int = 16, images: int = 8) -> Path:
    """Write half of the identities for training and half for testing under `root`; returns a config file beside them.

    Every identity has two colours of its own plus noise, over two cameras; one image of each test identity is a query.
    """
    data = root / "Market-1501-v15.09.15"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (data / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for pid in range(1, identities + 1):
        colours = rng.integers(0, 200, (2, 1, 1, 3))
        for number in range(images):
            image = np.concatenate([np.broadcast_to(colour, (32, 32, 3)) for colour in colours])
            image = (image + rng.integers(0, 56, image.shape)).astype(np.uint8)
            test_folder = "query" if number == 0 else "bounding_box_test"
            folder = "bounding_box_train" if pid <= identities // 2 else test_folder
            name = f"{pid:04d}_c{number % 2 + 1}s1_{number:06d}_00.jpg"
            Image.fromarray(image).save(data / folder / name, quality=95)
    config = root / "bagtricks.yml"
    config.write_text(CONFIG)
    return config
