"""Train or evaluate: fast-reid's `tools/train_net.py` with our config keys and trainer."""

import argparse
from typing import Any

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
from fastreid.engine import default_argument_parser

from tvilfm_plugin.cli.tool import finish
from tvilfm_plugin.cli.train_net import setup
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.engine.trained import model_of
from tvilfm_plugin.host.launch import launch


def main(args: argparse.Namespace) -> Any:
    cfg = setup(args)
    if args.eval_only:
        return TriTrainer.test(*model_of(cfg))
    trainer = TriTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def start() -> None:
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


if __name__ == "__main__":
    finish(start, goes_on="The same command with --resume goes on from the last checkpoint.")
