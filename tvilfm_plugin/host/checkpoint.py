"""Checkpoints that are whole or absent."""

import os
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tvilfm_plugin.files.json import shorten
from tvilfm_plugin.files.text import read_text
from tvilfm_plugin.files.writing import atomic_file, write_text
from tvilfm_plugin.host.replacing import around


def save_whole_files(checkpoint: types.ModuleType) -> None:
    """`Checkpointer` writes files that are complete or absent, and that `torch.load(weights_only=True)` can read.

    The original writes in place, and truncates `last_checkpoint` before it writes it: killed at that moment, a run cannot be
    resumed. A numpy number among the extra data would be saved but refused on loading. And a `last_checkpoint` that names
    something outside the run's folder is refused.
    """
    around(checkpoint.Checkpointer, "save")(_save)
    around(checkpoint.Checkpointer, "tag_last_checkpoint")(_tag)
    around(checkpoint.Checkpointer, "get_checkpoint_file")(_find)


def _save(save_in_place: Callable[..., None], self: Any, name: str, **kwargs: Any) -> None:
    if not self.save_dir or not self.save_to_disk:
        return
    if "://" in self.save_dir:  # a store that PathManager knows, not a folder
        save_in_place(self, name, **kwargs)
        return
    state = {"model": self.model.state_dict()}
    state.update((key, part.state_dict()) for key, part in self.checkpointables.items())
    state.update((key, value.item() if isinstance(value, np.generic) else value) for key, value in kwargs.items())
    file_name = f"{name}.pth"
    path = os.path.join(self.save_dir, file_name)
    if os.path.basename(path) != file_name:
        raise ValueError(f"A checkpoint's name is a plain file name, not {name!r}.")
    self.logger.info(f"Saving checkpoint to {path}")
    with atomic_file(path) as file:
        torch.save(state, file)
    self.tag_last_checkpoint(file_name)


def _tag(tag_in_place: Callable[[Any, str], None], self: Any, last_filename_basename: str) -> None:
    if "://" in self.save_dir:
        tag_in_place(self, last_filename_basename)
    else:
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)


def _find(find_in_place: Callable[[Any], str], self: Any) -> str:
    pointer = os.path.join(self.save_dir, "last_checkpoint")
    if "://" in self.save_dir or not os.path.isfile(pointer):
        return find_in_place(self)
    name = read_text(pointer).strip()
    if name in ("", ".", "..") or os.path.basename(name) != name or not name.isprintable():
        raise ValueError(
            f"{pointer} says {shorten(name)}, which is no file name: write that of a checkpoint beside it into it, e.g. "
            "model_final.pth, or start anew without --resume."
        )
    return os.path.join(self.save_dir, name)
