"""An unmodified script of the stock shape, through `python -m tvilfm_plugin`, on a Market-1501-style folder.

The flows share one process (importing fast-reid takes seconds); several processes and the command line proper are in
test_launch.py.
"""

import sys
from pathlib import Path

import pytest
import torch
from tiny_market import write_market

pytest.importorskip("fastreid")

from fastreid.modeling.meta_arch import META_ARCH_REGISTRY, Distiller
from tiny_runs import forget_logging, rows, weights

from tvilfm_plugin.__main__ import main

SCRIPT = str(Path(__file__).parents[1] / "stock_script.py")


class Runs:
    """The stock script on one small data set, each run in its own process's stead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = write_market(folder / "data")

    def __call__(self, name: str, *options: object) -> Path:
        """Run the script into the folder `name`; options starting with -- go before the config overrides."""
        out = self.folder / name
        flags = [str(o) for o in options if str(o).startswith("--")]
        pairs = [str(o) for o in options if not str(o).startswith("--")]
        forget_logging()
        assert main([SCRIPT, "--config-file", str(self.config), *flags, "OUTPUT_DIR", str(out), *pairs]) == 0
        return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(folder / "data"))
        yield Runs(folder)
        forget_logging()


@pytest.fixture(scope="module")
def trained(runs):
    return runs("trained", "SEED", 3)


def test_training_changes_every_weight_and_keeps_the_optimizer_state(trained):
    checkpoint = torch.load(trained / "model_final.pth")
    first = weights(trained / "model_0000.pth")
    changed = {name for name, value in checkpoint["model"].items() if not torch.equal(value, first[name])}
    constant = {"pixel_mean", "pixel_std", "heads.bottleneck.0.bias"}
    assert set(first) - changed <= constant
    assert checkpoint["optimizer"]["state"], "the optimizer never stepped"
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    losses = [row["total_loss"] for row in rows(trained)]
    assert losses[-1] < losses[0]


def test_every_evaluation_reaches_metrics_and_tensorboard(trained):
    lines = rows(trained)
    assert [row["iteration"] for row in lines] == [1, 3], "one line per epoch of two iterations"
    assert all({"mAP", "Rank-1", "total_loss"} <= row.keys() for row in lines)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained)).Reload()
    assert [event.step for event in events.Scalars("mAP")] == [1, 3]


def test_log_has_every_line_once_and_names_the_seed(trained):
    lines = (trained / "log.txt").read_text().splitlines()
    assert sum("Starting training from epoch 0" in line for line in lines) == 1
    assert any("SEED is 3" in line for line in lines)


def test_resume_continues_and_a_finished_run_is_only_evaluated(runs, trained):
    before = weights(trained / "model_final.pth")
    runs("trained", "--resume", "SEED", 3, "SOLVER.MAX_EPOCH", 3)
    log = (trained / "log.txt").read_text()
    assert "Starting training from epoch 2" in log
    assert [row["iteration"] for row in rows(trained)] == [1, 3, 5]
    after = weights(trained / "model_final.pth")
    assert not torch.equal(before["heads.weight"], after["heads.weight"])
    runs("trained", "--resume", "SEED", 3, "SOLVER.MAX_EPOCH", 3)
    again = weights(trained / "model_final.pth")
    assert all(torch.equal(again[name], after[name]) for name in after)
    evaluation = rows(trained)[-1]
    assert evaluation["iteration"] == 6 and "total_loss" not in evaluation
    assert evaluation["mAP"] == rows(trained)[-2]["mAP"]


def test_eval_only_with_every_option_of_the_test(runs, trained, caplog):
    options = ["TEST.METRIC", "euclidean", "TEST.FLIP.ENABLED", True, "TEST.AQE.ENABLED", True, "TEST.ROC.ENABLED", True]
    rerank = ["TEST.RERANK.ENABLED", True]
    out = runs("evaluated", "--eval-only", "MODEL.WEIGHTS", trained / "model_0000.pth", *options, *rerank)
    log = (out / "log.txt").read_text()
    assert "Test with rerank setting" in log and "Rank-1" in log and "TPR@FPR" in log
    assert "compiling" not in log


def test_one_iteration_with_mixed_precision_repeats_with_its_seed(runs):
    short = ["SOLVER.IMS_PER_BATCH", 64, "SOLVER.MAX_EPOCH", 1, "SOLVER.AMP.ENABLED", True]
    never = ["SOLVER.CHECKPOINT_PERIOD", 0, "TEST.EVAL_PERIOD", 0, "DATALOADER.SAMPLER_TRAIN", "TrainingSampler"]
    first, second = (runs(name, "SEED", 5, *short, *never) for name in ("once", "twice"))
    a, b = weights(first / "model_final.pth"), weights(second / "model_final.pth")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert [row.get("mAP") for row in rows(first)] == [row.get("mAP") for row in rows(second)]
    assert "mAP" in rows(first)[-1], "EVAL_PERIOD 0 evaluates at the end"
    assert "bfloat16" not in str(a["heads.weight"].dtype)


def test_a_distiller_of_ones_own_learns_from_a_trained_teacher(runs, trained):
    class FeatureDistiller(Distiller):
        """A teacher's features are learned through a layer of its own, as projects around fast-reid do."""

        def __init__(self, cfg):
            super().__init__(cfg)
            self.connector = torch.nn.Conv2d(512, 512, 1)

        def forward(self, batch):
            losses = super().forward(batch)
            if self.training:
                images = self.preprocess_image(batch)
                with torch.no_grad():
                    wanted = self.model_ts[0].backbone(images)
                losses["loss_feature"] = torch.nn.functional.mse_loss(self.connector(self.backbone(images)), wanted)
            return losses

    META_ARCH_REGISTRY.register(FeatureDistiller)
    teacher = runs.folder / "teacher.yml"
    teacher.write_text(f"_BASE_: {runs.config}\nMODEL: {{HEADS: {{NUM_CLASSES: 8}}}}\n")
    try:
        names = ["MODEL.META_ARCHITECTURE", "FeatureDistiller", "KD.MODEL_CONFIG", f"['{teacher}']"]
        names += ["KD.MODEL_WEIGHTS", f"['{trained / 'model_final.pth'}']", "SOLVER.MAX_EPOCH", 1]
        out = runs("distilled", "SEED", 3, *names)
    finally:
        del META_ARCH_REGISTRY._obj_map["FeatureDistiller"]
    row = rows(out)[-1]
    assert "mAP" in row and {"loss_feature", "loss_jsdiv"} <= row.keys()
    assert torch.load(out / "model_final.pth")["model"]["connector.weight"].shape == (512, 512, 1, 1)


def test_more_images_per_batch_than_images_is_explained(runs):
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 500, but the training set has only 64 images"):
        runs("too-many", "SOLVER.IMS_PER_BATCH", 500)


def test_stand_ins_go_when_the_script_ends(runs, trained):
    import fastreid.engine
    from fastreid.config import get_cfg

    assert fastreid.engine.DefaultTrainer.__module__ == "fastreid.engine.defaults"
    assert "TVILFM" not in get_cfg()
    assert getattr(sys.modules["__main__"], "__file__", None) != SCRIPT  # a test worker has no file at all


def test_usage(capsys):
    assert main([]) == 2
    assert "usage: python -m tvilfm_plugin" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert main(["no/such/script.py"]) == 2
    assert "no/such/script.py" in capsys.readouterr().err
