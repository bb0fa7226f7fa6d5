"""Going on with a run: whatever its last checkpoint holds fits, or the start is refused."""

from typing import Any

import torch
from torch import Tensor

from tvilfm_plugin.checkpoints.loading import load_weights
from tvilfm_plugin.files.weights import WeightsError

# Where a run without a GPU goes on with one, it has none; its own first value is as good.
_MAY_MISS = ("grad_scaler",)


def resume_run(checkpointer: Any, epochs: int, iterations: int) -> int:
    """Load the last checkpoint into everything that a run consists of; gives the epoch that follows, from 0.

    The host's own way skips what does not fit, and starts anew what the file lacks.
    """
    path = checkpointer.get_checkpoint_file()
    content = load_weights(checkpointer.model, path).content
    parts = checkpointer.checkpointables
    lacking = [name for name in ("epoch", *parts) if name not in content and name not in _MAY_MISS]
    remedy = "Resume from another checkpoint (last_checkpoint names it), or start anew with MODEL.WEIGHTS."
    if lacking:
        raise WeightsError(f"{path} is no checkpoint of a training: it lacks {', '.join(lacking)}. {remedy}")
    epoch = content["epoch"]
    if type(epoch) is not int or not 0 <= epoch < epochs:
        raise WeightsError(f"{path} says that it is of epoch {epoch!r} of {epochs}, counted from 0. {remedy}")
    check_optimizer_state(parts["optimizer"], content, path)
    for name in [name for name in parts if name in content]:
        try:
            parts[name].load_state_dict(content[name])
        # A file that was changed raises whatever its reader meets first.
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise WeightsError(f"{path} cannot be resumed, its {name} cannot be read ({what}). {remedy}") from None
    read = parts["data"].batches
    if read != (epoch + 1) * iterations:
        raise WeightsError(f"{path} is of epoch {epoch}, of {iterations} batches each, but {read} were read. {remedy}")
    return epoch + 1


def check_optimizer_state(optimizer: torch.optim.Optimizer, content: Any, path: str) -> None:
    """Raise where the optimizer's state in a checkpoint is not this optimizer's.

    torch compares numbers only: moments of other lengths would be read beyond their end by a fused kernel.

    Args:
        content: of the checkpoint that is about to be loaded; one without an optimizer is none of our business.
        path: of that checkpoint.
    """
    stored = content.get("optimizer") if isinstance(content, dict) else None
    if not isinstance(stored, dict):
        return
    groups, state = stored.get("param_groups", []), stored.get("state", {})
    remedy = "Resume with the config of the run (config.yaml lies beside it), or start anew without --resume."
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in optimizer.param_groups]:
        raise RuntimeError(
            f"The optimizer of {path} has {len(groups)} groups of parameters instead of {len(optimizer.param_groups)}, or "
            f"other numbers of them. {remedy}"
        )
    for number, (then, now) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
        if lacking := sorted(set(now) - set(then) - {"params", "name"}):
            raise RuntimeError(
                f"Group {number} of the optimizer of {path} lacks {', '.join(lacking)}: it was trained by another optimizer "
                f"than {type(optimizer).__name__}. {remedy}"
            )
        for key, parameter in zip(then["params"], now["params"], strict=True):
            moments = {name: value for name, value in state.get(key, {}).items() if isinstance(value, Tensor) and value.ndim}
            for name, value in moments.items():
                if value.shape != parameter.shape:
                    raise RuntimeError(
                        f"The optimizer's state in {path} has {name} {tuple(value.shape)} instead of {tuple(parameter.shape)}: "
                        f"it was trained with other parameters. {remedy}"
                    )
