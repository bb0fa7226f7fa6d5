"""What each of two processes does in test_two_processes.py; in a module of its own, which a spawned process can import."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fastreid.utils import comm
from fastreid.utils.events import EventStorage

from tvilfm_plugin.config import read_config
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.engine.trained import load_for_test
from tvilfm_plugin.host.agreement import take_from_main
from tvilfm_plugin.host.setup import default_setup

SYNC = ("MODEL.BACKBONE.NORM", "syncBN", "MODEL.HEADS.NORM", "syncBN", "MODEL.LOSSES.GATHER", True)


def config(file: Path, out: Path, *overrides: object) -> Any:
    cfg = read_config(file, ["OUTPUT_DIR", str(out), *overrides])
    cfg.freeze()
    return cfg


def evaluate(cfg: Any) -> dict[str, float]:
    """As --eval-only, on a rank 1 whose batch statistics have drifted away, as they do in training."""
    model = TriTrainer.build_model(cfg)
    load_for_test(cfg, model)
    if comm.get_rank() == 1:
        for name, buffer in model.named_buffers():
            buffer.add_(1 if "running" in name else 0)
    results = TriTrainer.test(cfg, model)
    assert take_from_main(model) == []
    next(buffer for name, buffer in model.named_buffers() if "running_mean" in name).add_(comm.get_rank())
    assert len(take_from_main(model)) == 1, "only what differs is sent"
    return results


def steps(cfg: Any, count: int, kind: type[TriTrainer] = TriTrainer) -> dict[str, Any]:
    """Some iterations: the first batch of this rank, the gradients of the first step, and the weights before and after."""
    trainer = kind(cfg)
    trainer.resume_or_load(False)
    model = trainer.model.module
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = []

    def watched(loader: Iterator[Any]) -> Iterator[Any]:
        for batch in loader:
            batches.append(batch)
            yield batch

    trainer._trainer._data_loader_iter = watched(trainer._trainer._data_loader_iter)
    with EventStorage(0):
        for trainer.iter in range(count):
            trainer.run_step()
            if trainer.iter == 0:
                grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    return {"before": before, "batch": batches[0], "grads": grads, "after": model.state_dict()}


def train(cfg: Any) -> Any:
    """A whole training, as tools/train_net.py does it."""
    default_setup(cfg, None)
    trainer = TriTrainer(cfg)
    trainer.resume_or_load(False)
    return trainer.train()


def work(folder: str, stage1: str, stage2: str, trained: str) -> None:
    out, weights = Path(folder), Path(trained)
    (out / "steps").mkdir(exist_ok=True)
    result = {
        "evaluation": evaluate(config(Path(stage2), out / "eval", "MODEL.WEIGHTS", str(weights / "model_final.pth"))),
        "stage2": steps(config(Path(stage2), out / "steps", "MODEL.WEIGHTS", str(weights / "stage1" / "model_final.pth")), 3),
        "gathered": steps(config(Path(stage1), out / "steps", *SYNC), 1),
    }
    cfg = config(Path(stage2), out / "train", "SOLVER.MAX_EPOCH", 1, "TEST.DRAWS", 1, "DATALOADER.NUM_WORKERS", 1)
    result["training"] = train(cfg)
    chosen = ("SOLVER.EPOCH_RULE", "validation", "TEST.EVAL_PERIOD", 1, "SOLVER.IMS_PER_BATCH", 4)
    result["chosen"] = train(config(Path(stage1), out / "chosen", *chosen, "MODEL.LOSSES.GATHER", True))
    torch.save(result, os.path.join(folder, f"rank{comm.get_rank()}.pt"))
