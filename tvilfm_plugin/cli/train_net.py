"""Train or evaluate: what `tvilfm train` and `tvilfm eval` start in every process, with fast-reid's own command line.

`python -m tvilfm_plugin.cli.train_net --config-file FILE [--resume] [--eval-only] [--num-gpus N] [KEY VALUE ...]`
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any

from tvilfm_plugin.cli import contract
from tvilfm_plugin.cli.command import DEBUG, Parser, split_overrides


def setup(args: argparse.Namespace) -> Any:
    """The config, frozen; folders, log and seed. Nothing is written where the run cannot start (`engine.ready`)."""
    from tvilfm_plugin.config import read_config
    from tvilfm_plugin.files.shipped import find_config
    from tvilfm_plugin.host.setup import default_setup

    args.config_file = str(find_config(args.config_file))  # the log quotes it
    cfg = read_config(args.config_file, args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def work(args: argparse.Namespace) -> Any:
    """One process: train, or evaluate MODEL.WEIGHTS."""
    from tvilfm_plugin.engine import TriTrainer
    from tvilfm_plugin.engine.trained import model_of

    cfg = setup(args)
    if args.eval_only:
        return TriTrainer.test(*model_of(cfg))
    trainer = TriTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def process_options(parser: Parser) -> None:
    """How many processes, on which machines."""
    parser.option("--num-gpus", type=int, default=1, help="processes on this machine: one per GPU, or on the CPU without one")
    parser.option("--num-machines", type=int, default=1, help="machines of the job")
    parser.option("--machine-rank", type=int, default=0, help="number of this machine (default: 0)")
    parser.option("--dist-url", default="auto", help="where the processes meet, e.g. tcp://HOST:PORT; auto on one machine")


def start(args: argparse.Namespace) -> None:
    """In as many processes as the options say."""
    from tvilfm_plugin.host.launch import launch

    # That the others are ended when one fails goes without saying.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    launch(
        work, args.num_gpus, num_machines=args.num_machines, machine_rank=args.machine_rank, dist_url=args.dist_url,
        args=(args,),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of fast-reid's tools/train_net.py."""
    parser = Parser(prog="train_net", description=__doc__)
    parser.option("--config-file", required=True, help="a config file, a shipped one by name")
    parser.option("--resume", action="store_true", help="go on from the last checkpoint")
    parser.option("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    process_options(parser)
    parser.option(DEBUG, action="store_true", help="show the traceback of an error")
    words, opts = split_overrides(list(sys.argv[1:] if argv is None else argv), parser)
    args = parser.parse_args(words)
    args.opts = opts
    start(args)
    return 0


if __name__ == "__main__":
    sys.exit(contract.run(main, prog="train_net", debug=DEBUG in sys.argv))
