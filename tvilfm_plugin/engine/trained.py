"""Models that are trained already, and the folders of their runs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastreid.modeling import build_model
from fastreid.utils.checkpoint import Checkpointer
from yacs.config import CfgNode

from tvilfm_plugin.checkpoints.loading import CLASSIFIER, load_weights
from tvilfm_plugin.config import check_config, read_config
from tvilfm_plugin.data.loaders import is_ours
from tvilfm_plugin.engine.finished import finished_weights
from tvilfm_plugin.files.shipped import DESCRIPTION, WEIGHTS, is_model_folder
from tvilfm_plugin.host.devices import usable_device
from tvilfm_plugin.modeling.text_encoder import FROM_CHECKPOINT


def load_model(
    config: str | os.PathLike[str], weights: str | os.PathLike[str], *, device: str = "", opts: Sequence[str] = ()
) -> tuple[CfgNode, Any]:
    """A trained model in eval mode and its config (a run's config.yaml, or the file that it was trained with) on a device."""
    cfg = read_config(config, [*opts, *(["MODEL.DEVICE", device] if device else [])])
    cfg.MODEL.WEIGHTS = os.fspath(weights)
    if is_ours(cfg):
        check_config(cfg, training=False)
    cfg.MODEL.DEVICE = str(usable_device(cfg.MODEL.DEVICE))
    cfg, model = model_of(cfg)
    return cfg, model.eval()


def model_of(cfg: CfgNode) -> tuple[CfgNode, Any]:
    """The model of a config with the weights of MODEL.WEIGHTS, and the config without the others, which nothing reads."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.TEXT.WEIGHTS = FROM_CHECKPOINT
    cfg.freeze()
    model = build_model(cfg)
    load_for_test(cfg, model)
    return cfg, model


def load_for_test(cfg: CfgNode, model: Any) -> None:
    """Load MODEL.WEIGHTS for an evaluation, which needs no classifier."""
    if is_ours(cfg):
        model.provenance = load_weights(model, cfg.MODEL.WEIGHTS, may_differ=(CLASSIFIER,)).provenance
    else:
        Checkpointer(model).load(cfg.MODEL.WEIGHTS)


def load_run(run: str | os.PathLike[str], *, device: str = "", opts: Sequence[str] = ()) -> tuple[CfgNode, Any]:
    """The trained model of a run's folder, moved or copied, or of a model folder, and its config."""
    folder = Path(run)
    config, weights = config_of_run(folder), weights_of_run(folder)
    return load_model(config, weights, device=device, opts=["OUTPUT_DIR", str(folder), *opts])


def config_of_run(run: Path) -> Path:
    """The config of a run, or of a model folder, by its folder."""
    if (run / "config.yaml").is_file():
        return run / "config.yaml"
    if is_model_folder(run):
        return run / DESCRIPTION
    if run.is_dir():
        raise FileNotFoundError(
            f"{run} is no run: it has no config.yaml, which a training writes into its OUTPUT_DIR. Name the folder of one."
        )
    near = sorted(str(path.parent) for path in Path("logs").glob("*/*/config.yaml"))[:8]
    known = f"Runs here are {', '.join(near)}." if near else "A run is the OUTPUT_DIR of a training."
    raise FileNotFoundError(f"There is no folder {run}. {known}")


def weights_of_run(run: Path, config: Path | None = None) -> Path:
    """The weights that count of a finished run, wherever its folder lies now, by its own config or another."""
    if is_model_folder(run):
        return run / WEIGHTS
    config = config or config_of_run(run)
    cfg = read_config(config)
    cfg.OUTPUT_DIR = str(run)
    found = finished_weights(cfg)
    if not found:
        others = ", ".join(sorted(path.name for path in run.glob("*.pth"))[-3:]) or "none"
        raise FileNotFoundError(
            f"{run} is not finished: it has no final weights (checkpoints: {others}). Go on with `tvilfm train {config} "
            "--resume`, or name a checkpoint by --weights."
        )
    return Path(found)
