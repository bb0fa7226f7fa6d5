"""Packaging. fast-reid is not among the requirements: its pins (torch==1.13.1) cannot be met, so it is installed by
`pip install --no-deps fastreid==1.4.0`, as the Makefile does; `requirements.txt` holds the versions that are tested."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (HERE / "tvilfm_plugin/__init__.py").read_text(encoding="utf-8"), re.M)[1]
# Folders of the checkout that go into the package, at the same places relative to each other, so that `_BASE_` works.
SHIPPED = ("configs", "projects")


class BuildWithConfigs(build_py):
    """Copies the configs into the package. An editable install finds them in the checkout."""

    def run(self) -> None:
        super().run()
        for name in SHIPPED:
            if (HERE / name).is_dir() and not self.editable_mode:
                shutil.copytree(HERE / name, Path(self.build_lib) / "tvilfm_plugin" / name, dirs_exist_ok=True)


HOST_NEEDS = [
    "torch>=2.6",
    "torchvision>=0.21",
    "faiss-cpu>=1.11",
    "numpy>=2.0",
    "Pillow>=11",
    "PyYAML>=6.0",
    "scikit-learn>=1.6",
    "scipy>=1.14",
    "tabulate>=0.9",
    "tensorboard>=2.18",
    "termcolor>=2.0",
    "yacs>=0.1.8",
]
OWN_NEEDS = [
    "open_clip_torch>=3.3,<3.4",
    "matplotlib>=3.9",
    "tqdm>=4.66",
    "filelock>=4",
    "pydantic>=2.10,<3",
    "safetensors>=0.5",
    "huggingface_hub>=0.30",
]

setup(
    name="tvilfm-plugin",
    version=VERSION,
    description="Text-enhanced visible-infrared person re-identification (TVI-LFM) as a plugin to fast-reid",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    keywords="person re-identification, visible-infrared, text, retrieval, fast-reid",
    project_urls={
        "Paper (TVI-LFM)": "https://neurips.cc/virtual/2024/poster/93497",
        "Host (fast-reid)": "https://github.com/JDAI-CV/fast-reid",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["tvilfm_plugin", "tvilfm_plugin.*"]),
    package_data={
        "tvilfm_plugin": ["py.typed", "pretrained/*/*", "pretrained/*/pictures/*"],
        "tvilfm_plugin.host": ["startup/*.py"],
        "tvilfm_plugin.retrieval": ["web_page.*"],
        "": ["*.json"],
    },
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["tvilfm = tvilfm_plugin.cli.main:entry"]},
    install_requires=HOST_NEEDS + OWN_NEEDS,
    extras_require={
        "captions": ["transformers>=5.0,<6", "accelerate>=1.0"],
        "gguf": ["gguf>=0.10"],  # --llm model.gguf
        "web": ["starlette>=1.0,<2", "uvicorn>=0.35"],
        "vectordb": ["pymilvus>=3,<4"],
        # What `tvilfm export` writes with; and what tvilfm_plugin.runtime needs, beside numpy and Pillow, where it alone is
        # used (pip install --no-deps of the wheel).
        "export": ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.20", "tokenizers>=0.21", "regex", "ftfy>=6"],
        "parquet": ["pandas>=2.2", "pyarrow>=17"],
        "dev": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.120", "ruff>=0.9", "mypy>=1.15"],
    },
)
