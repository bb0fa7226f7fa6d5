"""Which repair belongs to which module of fast-reid: it is made when the code of that module has run."""

import functools
import importlib
import sys
import types
from collections.abc import Callable

from tvilfm_plugin.host import importing, patches

Mend = Callable[[types.ModuleType], None]


def _from(name: str) -> Mend:
    """A function `module:function` of this room, imported when it is needed."""
    module, _, function = name.partition(":")
    return lambda mended: getattr(importlib.import_module(f"tvilfm_plugin.host.{module}"), function)(mended)


MENDS: dict[str, tuple[Mend, ...]] = {
    "utils.logger": (patches.log_every_line_once,),
    "utils.compute_dist": (patches.rerank_on_cpu,),
    "utils.params": (_from("optimizer:keep_gradient_buffers"),),
    "utils.checkpoint": (_from("checkpoint:save_whole_files"),),
    "solver.build": (_from("optimizer:fuse_ordinary_optimizers"),),
    "data.transforms.build": (patches.accept_old_affine_arguments,),
    "data.data_utils": (_from("batches:load_on_any_device"),),
    "data.build": (_from("loaders:load_on_any_device"),),
    "layers.batch_norm": (_from("steps:synchronise_on_any_device"),),
    "modeling.meta_arch.baseline": (patches.normalise_out_of_place,),
    "modeling.meta_arch.mgn": (patches.normalise_out_of_place,),
    "modeling.meta_arch.build": (_from("trainer:build_on_usable_device"),),
    "modeling.backbones.regnet.config": (patches.read_backbone_files_afresh,),
    **{
        f"modeling.backbones.{name}": (patches.explain_missing_pretrained_weights,)
        for name in ("resnet", "resnext", "osnet", "regnet.regnet", "regnet.effnet")
    },
    "evaluation.reid_evaluation": (patches.compile_nothing,),
    "utils.comm": (_from("launch:wait_for_long"),),
    "engine.train_loop": (_from("steps:step_on_any_device"), _from("movement:watch_first_step")),
    "engine.hooks": (_from("hooks:act_as_meant"),),
    "engine.defaults": (_from("trainer:train_on_any_device"), _from("setup:set_up_when_ready")),
    "engine.launch": (_from("launch:launch_anywhere"),),
}


def apply() -> None:
    """Mend each module of fast-reid as soon as its code has run. Safe to call again."""
    patches.silence_known_warnings()
    for name, mends in MENDS.items():
        importing.after(f"fastreid.{name}", functools.partial(_mend, f"fastreid.{name}", mends))


def _mend(name: str, mends: tuple[Mend, ...]) -> None:
    for mend in mends:
        mend(sys.modules[name])
