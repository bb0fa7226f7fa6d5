"""`tvilfm train|eval|run|config|demo`: what fast-reid's users do with tools/train_net.py, and a look at configs."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

from tvilfm_plugin.cli.command import Command, Parser
from tvilfm_plugin.cli.run_folder import DEMO_RUN, MODEL, folder_of_model
from tvilfm_plugin.cli.train_net import process_options, start

RESUME = "The same command with --resume goes on from the last checkpoint."
BY_NAME = (
    "A config is found by its path or by its name: in the current folder, then in the checkout, then in the package "
    "(sysu.yml or sysu: TVI-LFM's; MIP/sysu.yml: MIP's)."
)


def _train_options(parser: Parser) -> None:
    parser.positional("config", help="config file, a shipped one by name: sysu.yml, MIP/sysu.yml")
    parser.option("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.option("--out-dir", help="instead of the config's OUTPUT_DIR")
    process_options(parser)


def train(args: argparse.Namespace) -> int:
    """Both stages, then the evaluation."""
    args.config_file, args.eval_only = args.config, False
    args.opts = [*args.opts, *(["OUTPUT_DIR", str(args.out_dir)] if args.out_dir else [])]
    del args.parser  # it does not travel to other processes
    start(args)
    return 0


def _eval_options(parser: Parser) -> None:
    parser.positional("run", type=Path, help=f"{MODEL}; or a config file, with --weights")
    parser.option("--weights", help="a checkpoint (default: the run's final weights)")
    out = "where the results go (default: OUTPUT_DIR; of a run: its folder; of a model folder: logs/ITS_NAME)"
    parser.option("--out-dir", help=out)
    process_options(parser)


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate a run, or any weights by a config."""
    from tvilfm_plugin.engine.trained import config_of_run, weights_of_run
    from tvilfm_plugin.files.shipped import find_config, is_model_folder

    run, weights = folder_of_model(args.run), args.weights
    if run.is_dir():
        args.config_file = str(config_of_run(run))
        if weights and not Path(weights).is_file():
            weights = str(run / weights)
        weights, out = weights or str(weights_of_run(run)), args.out_dir or run
        if is_model_folder(run) and not args.out_dir:
            out = Path("logs") / run.resolve().name
    elif run.suffix in (".yml", ".yaml") or weights:
        args.config_file, out = str(find_config(run)), args.out_dir
        if not weights and "MODEL.WEIGHTS" not in args.opts:
            args.parser.error("a config needs weights: name a checkpoint by --weights")
    else:
        args.config_file, out = str(config_of_run(run)), None  # there is none: it says what is missing
    args.opts = [*args.opts, *(["MODEL.WEIGHTS", weights] if weights else []), *(["OUTPUT_DIR", str(out)] if out else [])]
    args.eval_only, args.resume = True, False
    del args.parser
    start(args)
    return 0


def _run_options(parser: Parser) -> None:
    parser.positional("script", help="a program written for fast-reid, e.g. its tools/train_net.py; its own arguments follow")


def run_script(args: argparse.Namespace) -> int:
    """The script, unmodified."""
    script = args.words[0]
    if not script.startswith("-") and not Path(script).exists():
        raise FileNotFoundError(f"There is no script {script!r} (from {Path.cwd()}).")
    from tvilfm_plugin.host.scripts import run

    return run(args.words)


def _config_options(parser: Parser) -> None:
    parser.positional("config", nargs="?", help="config file, a shipped one by name (default: list the shipped ones)")


def config(args: argparse.Namespace) -> int:
    """Print the merged config, with the origin of every value."""
    from tvilfm_plugin.files.shipped import find_config, shipped_configs, short_name

    if not args.config:
        print("\n".join(f"{short_name(path):28} {path}" for path in shipped_configs()))
        return 0
    from tvilfm_plugin.engine.config_report import config_report

    print(config_report(str(find_config(args.config)), args.opts))
    return 0


def _demo_options(parser: Parser) -> None:
    parser.option("--workers", type=int, default=2, help="processes that draw")


def _demo(args: argparse.Namespace, main: Callable[[list[str]], int]) -> int:
    """Everything that `make demo` does."""
    data = "datasets/synthetic"
    steps = [
        f"data make --layout sysu --ids 464 --test-ids 80 --seed 0 --out-dir {data} --workers {args.workers}",
        "train synthetic.yml --resume",
        f"results show {DEMO_RUN}",
    ]
    for step in steps:
        print(f"$ tvilfm {step}", flush=True)
        if status := main([*step.split(), *(["--debug"] if args.debug else [])]):
            return status
    return 0


TRAIN = Command(
    name="train",
    help="train a config: stage 1, stage 2, and the evaluation",
    about=BY_NAME + " STAGE1.KEY VALUE reaches stage 1 alone. A finished stage 1 with the same recipe is used again.",
    options=_train_options,
    work=train,
    overrides=True,
    goes_on=RESUME,
    examples=(
        "tvilfm train sysu.yml",
        "tvilfm train sysu.yml --resume --num-gpus 4 SOLVER.MAX_EPOCH 60 STAGE1.SOLVER.MAX_EPOCH 120",
    ),
)
EVAL = Command(
    name="eval",
    help="evaluate a run by its data set's protocol, or any weights by a config",
    about=BY_NAME,
    options=_eval_options,
    work=evaluate,
    overrides=True,
    examples=("tvilfm eval logs/tvilfm/sysu TEST.RERANK.ENABLED True", "tvilfm eval sysu_released.yml --weights sysu.pth"),
)
RUN = Command(
    name="run",
    help="run a script written for fast-reid with the plugin loaded",
    about="As `python -m tvilfm_plugin SCRIPT`: the script runs unmodified, knows our data sets, models and keys, and its "
    "DefaultTrainer is the plugin's.",
    options=_run_options,
    work=run_script,
    rest=True,
    examples=("tvilfm run tools/train_net.py --config-file projects/TVILFM/configs/synthetic.yml",),
)
CONFIG = Command(
    name="config",
    help="print the merged config with the origin of every value, or list the shipped configs",
    about=BY_NAME,
    options=_config_options,
    work=config,
    overrides=True,
    examples=("tvilfm config", "tvilfm config sysu.yml SOLVER.MAX_EPOCH 60"),
)
COMMANDS = (TRAIN, EVAL, RUN, CONFIG)


def demo(main: Callable[[list[str]], int]) -> Command:
    """The command that does several others by `main`."""
    return Command(
        name="demo",
        help="make the synthetic benchmark, train both stages on it, evaluate, and show the table (as `make demo`)",
        options=_demo_options,
        work=functools.partial(_demo, main=main),
        goes_on="The same command goes on where it was.",
        examples=("tvilfm demo",),
    )
