"""A trained model by the run that made it, or by its two files."""

import argparse
from pathlib import Path

from tvilfm_plugin.cli.command import Parser

MODEL = "output folder of the run; or a model folder (tvilfm export --format folder), example, or hf:OWNER/NAME of the hub"
DEMO_RUN = "logs/tvilfm/synthetic"
# What the tools take where nothing is named: what `make demo` trained.
DEMO_CONFIG, DEMO_WEIGHTS = "projects/TVILFM/configs/synthetic.yml", f"{DEMO_RUN}/model_final.pth"


def model_options(parser: Parser, run: str = "") -> None:
    """Which model; `run` is taken where none is named ("": one must be)."""
    if parser.legacy:
        config, weights = (Path(DEMO_CONFIG), Path(DEMO_WEIGHTS)) if run else (None, None)
        parser.option("--config-file", type=Path, required=not run, default=config, help="of the run: RUN/config.yaml")
        parser.option("--weights", type=Path, required=not run, default=weights, help="e.g. RUN/model_final.pth")
        parser.set_defaults(run=None)
        return
    parser.positional("run", type=Path, nargs="?", default=run or None, help=MODEL)
    parser.option("--config-file", type=Path, help="instead of RUN/config.yaml; a shipped one by name")
    parser.option("--weights", type=Path, help="a checkpoint (default: the run's final weights)")


def folder_of_model(run: Path) -> Path:
    """The folder that RUN names: itself, or that of a model that comes with the plugin or from the hub."""
    from tvilfm_plugin.checkpoints.model_folder import find_pretrained
    from tvilfm_plugin.files.shipped import folder_of

    if run.is_dir():
        return run
    return find_pretrained(str(run)) if str(run).startswith("hf:") else folder_of(run) or run


def config_and_weights(args: argparse.Namespace) -> tuple[Path, Path]:
    """The two files of the model that the options name."""
    from tvilfm_plugin.files.shipped import find_config

    run: Path | None = None if args.run is None else folder_of_model(args.run)
    if run is None:
        if not args.config_file or not args.weights:
            args.parser.error("name a RUN (its output folder), or both --config-file and --weights")
        return find_config(args.config_file), args.weights
    from tvilfm_plugin.engine.trained import config_of_run, weights_of_run

    config = find_config(args.config_file) if args.config_file else config_of_run(run)
    if args.weights:
        return config, args.weights if args.weights.is_file() or args.weights.is_absolute() else run / args.weights
    return config, weights_of_run(run, config)
