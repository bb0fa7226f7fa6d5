"""Captioners by name: what a user of captioning imports."""

from typing import Any

from tvilfm_plugin.captioning import blip, chat_vlm, git  # noqa: F401  (importing registers; no model is loaded)
from tvilfm_plugin.captioning.base import CAPTIONER_REGISTRY, Captioner, Decoding, Description

__all__ = ["CAPTIONER_REGISTRY", "Captioner", "Decoding", "Description", "load_captioner"]


def load_captioner(kind: str, name: str, **options: Any) -> Captioner:
    """A captioner of `CAPTIONER_REGISTRY` with the weights of a folder or a hub id."""
    loaded: Captioner = CAPTIONER_REGISTRY[kind].load(name, **options)
    return loaded
