"""Train or evaluate: fast-reid's `tools/train_net.py` with our config keys and trainer."""

import argparse
from typing import Any

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
from fastreid.config import CfgNode
from fastreid.engine import default_argument_parser

from tvilfm_plugin.cli.tool import finish
from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.files.shipped import find_config
from tvilfm_plugin.host.launch import launch
from tvilfm_plugin.host.setup import default_setup
from tvilfm_plugin.modeling.text_encoder import FROM_CHECKPOINT


def setup(args: argparse.Namespace) -> CfgNode:
    args.config_file = str(find_config(args.config_file))
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args: argparse.Namespace) -> Any:
    cfg = setup(args)
    if args.eval_only:
        cfg.defrost()
        cfg.MODEL.BACKBONE.PRETRAIN = False
        cfg.MODEL.TEXT.WEIGHTS = FROM_CHECKPOINT
        model = TriTrainer.build_model(cfg)
        TriTrainer.load_for_test(cfg, model)
        return TriTrainer.test(cfg, model)
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
