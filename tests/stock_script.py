"""A training script of the stock shape, which knows nothing of the plugin: what users of fast-reid have at hand."""

from fastreid.config import get_cfg
from fastreid.engine import DefaultTrainer, default_argument_parser, default_setup, launch
from fastreid.utils.checkpoint import Checkpointer


def setup(args):
    """Config from file and command line, then folders, log and seed."""
    config = get_cfg()
    config.merge_from_file(args.config_file)
    config.merge_from_list(args.opts)
    config.freeze()
    default_setup(config, args)
    return config


def main(args):
    """Evaluate the weights of the config, or train."""
    config = setup(args)
    if not args.eval_only:
        trainer = DefaultTrainer(config)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    config.defrost()
    config.MODEL.BACKBONE.PRETRAIN = False
    model = DefaultTrainer.build_model(config)
    Checkpointer(model).load(config.MODEL.WEIGHTS)
    return DefaultTrainer.test(config, model)


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    print("Command Line Args:", args)
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
