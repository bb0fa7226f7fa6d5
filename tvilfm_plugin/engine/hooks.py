"""What happens around an epoch of a Tri- training: seeds, epoch number, stored views, checkpoints."""

import logging
import os
import re
from typing import Any

from fastreid.engine import hooks
from fastreid.utils import comm
from yacs.config import CfgNode

from tvilfm_plugin.data.loaders import cache_folder
from tvilfm_plugin.host.setup import seed_everything
from tvilfm_plugin.modeling.registration import uses_text
from tvilfm_plugin.modeling.stored_views import fill_banks

logger = logging.getLogger("fastreid." + __name__)


def bare(model: Any) -> Any:
    """The model itself, also where DDP has wrapped it."""
    return getattr(model, "module", model)


class EpochSeed(hooks.HookBase):
    """Seeds every generator at the start of an epoch, so that an epoch depends on its number and not on how it was reached."""

    def before_epoch(self) -> None:
        # The sampler's seed is drawn where there is no SEED, and comes back with a resumed run.
        seed = self.trainer.data_loader.sampler.seed
        seed_everything(seed + 1_000_003 * (self.trainer.epoch + 1) + comm.get_rank())


class ModelEpoch(hooks.HookBase):
    """Tells the model which epoch begins (from 0), if it asks by having `set_epoch`: a loss of MIP's joins later."""

    def before_epoch(self) -> None:
        model = bare(self.trainer.model)
        if hasattr(model, "set_epoch"):
            model.set_epoch(self.trainer.epoch)


class StoredViews(hooks.HookBase):
    """Before stage 2 begins, with the weights of stage 1 in place: features in the place of images (TVILFM.BANK)."""

    def before_train(self) -> None:
        cfg, loader = self.trainer.cfg, self.trainer.data_loader
        visual = bare(self.trainer.model).visual
        bank = cfg.TVILFM.BANK
        loader.dataset.banks = fill_banks(visual, loader.dataset, cache_folder(cfg, loader.data), bank.DTYPE, bank.MAX_GB)
        logger.info(f"Training on {bank.VIEWS} stored views per image: an approximation of new views in every epoch")


def stores_views(cfg: CfgNode) -> bool:
    """Whether stage 2 trains on stored features; raises where the visual part does not hold still."""
    if not uses_text(cfg) or not cfg.TVILFM.BANK.VIEWS:
        return False
    if cfg.TVILFM.FROM_SCRATCH or not cfg.TVILFM.FREEZE_BN:
        key = "TVILFM.FROM_SCRATCH True" if cfg.TVILFM.FROM_SCRATCH else "TVILFM.FREEZE_BN False"
        raise ValueError(
            f"Features can be stored only while the visual part does not change, and {key} changes it. Set "
            "TVILFM.BANK.VIEWS 0, which draws new views in every epoch."
        )
    return True


class RollingCheckpoint(hooks.HookBase):
    """Saves every `period` epochs and keeps only the newest such file, and `model_final` at the end.

    A run of 120 epochs would otherwise leave 120 files; no file is chosen on the test set.
    """

    def __init__(self, checkpointer: Any, period: int) -> None:
        self.checkpointer = checkpointer
        self.period = period

    def after_epoch(self) -> None:
        epoch, last = self.trainer.epoch, self.trainer.epoch + 1 >= self.trainer.max_epoch
        if not last and not (self.period > 0 and (epoch + 1) % self.period == 0):
            return
        older = self.checkpointer.get_checkpoint_file() if self.checkpointer.has_checkpoint() else ""
        name = "model_final" if last else f"model_{epoch:04d}"
        self.checkpointer.save(name, epoch=epoch)
        file = os.path.basename(older)
        if re.fullmatch(r"model_\d+\.pth", file) and file != f"{name}.pth" and os.path.isfile(older):
            os.remove(older)
