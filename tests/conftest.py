"""One thread per test process: on two cores libgomp's spinning barriers cost more than the arithmetic. Set before torch."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import tvilfm_plugin  # noqa: E402, F401  (the compatibility fixes come before anything imports torchvision)

sys.path.insert(0, str(Path(__file__).parent))
