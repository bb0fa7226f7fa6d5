"""The trainer: rates, stages, what a run leaves behind, loading, and what users see."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from oracles_modeling import golden_json, small_config, small_model, write_tower
from tiny_runs import ROOT, rows, same, weights

pytest.importorskip("fastreid")

from tvilfm_plugin.checkpoints.released_keys import released_key
from tvilfm_plugin.config import get_cfg, read_config, stage1_config
from tvilfm_plugin.engine import TriTrainer, lr_factor, param_groups
from tvilfm_plugin.engine.run import Identity, recipe

GOLDEN = golden_json("param_groups_lr")
CONFIGS = ROOT / "projects" / "TVILFM" / "configs"
RELEASED_REGDB = (
    "SOLVER.TEXT_WEIGHT_DECAY", 0.0005, "SOLVER.TEXT_BIAS_LR_FACTOR", 2.0, "SOLVER.TEXT_BIAS_WEIGHT_DECAY", 0.0,
    "SOLVER.TEXT_EMBEDDING_LR", 0.002,
)  # fmt: skip


# --- rates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["sysu_stage1", "sysu_stage2"])
def test_learning_rate_of_every_epoch_equals_the_golden(stage):
    cfg = config("sysu.yml" if stage.endswith("2") else "sysu_stage1.yml")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=cfg.SOLVER.BASE_LR)
    scheduler = TriTrainer.build_lr_scheduler(cfg, optimizer, 7)["lr_sched"]
    golden = GOLDEN[stage]["lr_of_visual_group_per_epoch"]
    assert len(golden) == 120
    for epoch, expected in enumerate(golden):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-9), epoch
        parameter.grad = torch.zeros(1)
        optimizer.step()
        scheduler.step()


def test_lr_factor_without_warm_up_or_milestones():
    assert [lr_factor(e, 0, 0.01, (2,), 0.5) for e in range(4)] == [1, 1, 0.5, 0.5]
    assert lr_factor(9, 0, 0.01, (), 0.1) == 1


def test_the_hosts_warm_up_beside_ours_is_refused():
    cfg = config("sysu.yml", "SOLVER.WARMUP_ITERS", 10)
    with pytest.raises(ValueError, match="WARMUP_ITERS 0"):
        TriTrainer.build_lr_scheduler(cfg, torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]), 5)


@pytest.mark.parametrize(
    ("file", "golden", "overrides"),
    [
        ("sysu_stage1.yml", "sysu_stage1", ()),
        ("regdb_stage1.yml", "regdb_stage1", ()),
        ("sysu.yml", "sysu_stage2", ()),
        ("llcm.yml", "sysu_stage2", ()),
        ("regdb.yml", "regdb_stage2", RELEASED_REGDB),
    ],
)
def test_rate_and_decay_of_every_parameter_equal_the_golden(tmp_path, file, golden, overrides):
    found = rates(tmp_path, config(file, *overrides))
    expected = GOLDEN[golden]["groups"]
    assert len(found) > 30
    assert found == {name: tuple(expected[released_key(name)]) for name in found}


def test_regdb_in_preset_paper(tmp_path):
    for name, pair in rates(tmp_path, config("regdb.yml")).items():
        assert pair == ((1e-5, 4e-5) if name.startswith("text.") else (0.004, 0.0005)), name


def config(file, *overrides):
    cfg = read_config(CONFIGS / file, overrides)
    return cfg


def rates(folder: Path, cfg) -> dict[str, tuple[float, float]]:
    """What `param_groups` gives the parameters of a small model of the config's architecture."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    model = small_model(architecture, write_tower(folder) if architecture == "TVILFM" else "")
    groups = param_groups(cfg, model)
    assert all(group["params"][0] is dict(model.named_parameters())[group["name"]] for group in groups)
    assert {group["name"] for group in groups} == {n for n, p in model.named_parameters() if p.requires_grad}
    return {group["name"]: (pytest.approx(group["lr"]), pytest.approx(group["weight_decay"])) for group in groups}


# --- both stages in one command --------------------------------------------------------------------------------------


def test_both_stages_leave_their_files(trained):
    for out in (trained, trained / "stage1"):
        assert [path.name for path in out.glob("*.pth")] == ["model_final.pth"], "rolling checkpoints keep one file"
        assert (out / "last_checkpoint").read_text() == "model_final.pth"
        assert {"rankings.npz", "parts.pt", "results.json", "table.md"} == {
            path.name for path in (out / "evaluation" / "TriSYSUMM01").iterdir()
        }
        checkpoint = torch.load(out / "model_final.pth", weights_only=True)
        assert checkpoint["epoch"] == 1 and checkpoint["data"] == {"batches": 10, "seed": 3}
        assert checkpoint["optimizer"]["state"] and "lr_sched" in checkpoint
        cfg = read_config(out / "config.yaml")
        assert cfg.MODEL.HEADS.NUM_CLASSES == 4 and cfg.SOLVER.MAX_EPOCH == 2


def test_stage_2_keeps_the_backbone_and_trains_the_rest(trained):
    first, second = weights(trained / "stage1" / "model_final.pth"), weights(trained / "model_final.pth")
    frozen = {name for name in second if name.startswith("visual.")}
    assert frozen and same({n: first[n] for n in frozen}, {n: second[n] for n in frozen})
    assert not any(torch.equal(first[n], second[n]) for n in first if n.startswith("heads.") and n.endswith("weight"))


def test_metrics_hold_the_rates_of_every_epoch_and_the_last_evaluation(trained):
    returned = json.loads((trained / "returned.json").read_text())
    last = rows(trained)[-1]
    assert {f"{s}/{t}/{m}" for s in ("all", "indoor") for t in ("infrared", "ensemble") for m in ("R-1", "mAP")} <= set(last)
    assert {name: last[name] for name in returned} == returned
    assert rows(trained / "stage1")[-1]["all/infrared/R-1"] >= 0
    assert "all/ensemble/R-1" not in rows(trained / "stage1")[-1]
    # The hook reports the largest group of equal rates: in stage 1 the visual part, warm-up .01, then 1 x .1 of the milestone.
    assert [row["lr"] for row in rows(trained / "stage1") if row["iteration"] in (4, 9)] == [
        pytest.approx(0.002 * factor) for factor in (0.01, 0.1)
    ]


def test_tensorboard_has_losses_and_results(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained)).Reload()
    assert {"total_loss", "loss_identity", "loss_weighted_triplet", "all/ensemble/mAP"} <= set(events.Tags()["scalars"])
    assert events.Scalars("all/ensemble/mAP")[-1].value == pytest.approx(rows(trained)[-1]["all/ensemble/mAP"])


def test_one_log_of_both_stages_without_doubled_lines_or_needless_warnings(trained):
    log = (trained / "log.txt").read_text()
    assert not (trained / "stage1" / "log.txt").exists()
    assert log.count("Starting training from epoch 0") == 2 and log.count("Stage 2 follows") == 1
    assert log.count("Tri-SYSU-MM01, indoor:") == 2, "one evaluation per stage"
    lines = [line for line in log.splitlines() if line.startswith("[")]
    stamped = [line.split("] ", 1)[-1] for line in lines if "iter:" in line or "Saving checkpoint" in line]
    assert len(stamped) == len(set(stamped)) > 8
    warned = [line for line in log.splitlines() if "WARNING" in line]
    assert len(warned) == 1 and "RANDOM" in warned[0], warned
    assert json.loads((trained / "warnings.json").read_text()) == []


def test_a_progress_line_tells_the_remaining_time(trained):
    progress = [line for line in (trained / "log.txt").read_text().splitlines() if "eta:" in line]
    assert progress and all("total_loss:" in line and "lr:" in line for line in progress)


def test_eval_only_repeats_the_last_evaluation(tiny, trained, recwarn):
    returned = json.loads((trained / "returned.json").read_text())
    results = tiny("evaluated", "--eval-only", "MODEL.WEIGHTS", trained / "model_final.pth")
    assert results == returned
    stored = [out / "evaluation" / "TriSYSUMM01" / "results.json" for out in (trained, tiny.folder / "evaluated")]
    cards = [json.loads(path.read_text())["cards"] for path in stored]
    assert cards[0] == cards[1], "also the hash of the weights"
    assert not [w for w in recwarn if "zero-element" in str(w.message)]


def test_each_stage_alone_gives_the_same_weights(tiny, trained):
    """So the seed makes a run repeatable, bit for bit, and nothing but the weights passes from stage 1 to stage 2."""
    tiny("alone1", config=tiny.stage1)
    assert same(weights(tiny.folder / "alone1" / "model_final.pth"), weights(trained / "stage1" / "model_final.pth"))
    tiny("alone2", "MODEL.WEIGHTS", trained / "stage1" / "model_final.pth", "DATALOADER.NUM_WORKERS", 2)
    assert same(weights(tiny.folder / "alone2" / "model_final.pth"), weights(trained / "model_final.pth"))
    assert not (tiny.folder / "alone2" / "stage1").exists()


def test_a_finished_stage_1_is_recognised_until_its_recipe_changes(tiny, trained):
    out = tiny.folder / "again"
    shutil.copytree(trained, out)
    first = (out / "stage1" / "model_final.pth").stat().st_mtime_ns
    # What stage 1 does not read, and what does not change its weights.
    ablation = ["TVILFM.FUSION", "Add", "SOLVER.TEXT_LR", 0.001, "TEST.DRAWS", 1]
    tiny("again", *ablation, "TEST.TEXT_SOURCES", "('oracle', 'self')")
    assert (out / "stage1" / "model_final.pth").stat().st_mtime_ns == first
    log = (out / "log.txt").read_text()
    assert log.count("Stage 1 is finished") == 1 and "this one starts anew (--resume" in log
    assert not same(weights(out / "model_final.pth"), weights(trained / "model_final.pth"))

    tiny("again", "STAGE1.SOLVER.BASE_LR", 0.004, "--resume", *ablation)
    assert "made with other values" not in (out / "log.txt").read_text(), "a stage 2 with a checkpoint goes on"
    os.remove(out / "last_checkpoint")
    tiny("again", "STAGE1.SOLVER.BASE_LR", 0.004, "--resume", "SOLVER.MAX_EPOCH", 1, "SOLVER.STEPS", [5], *ablation)
    log = (out / "log.txt").read_text()
    assert "made with other values of SOLVER.BASE_LR, SOLVER.MAX_EPOCH, SOLVER.STEPS: it is trained anew" in log
    # metrics.json goes on where the older run's ended.
    rate = lambda folder: [row["lr"] for row in rows(folder) if "lr" in row][-1]
    assert rate(out / "stage1") == pytest.approx(0.004 * 0.01)
    assert rate(out) == pytest.approx(2 * 0.002 * 0.01), "STAGE1. reaches stage 1 alone"


def test_a_finished_run_is_only_evaluated(tiny, trained):
    out = tiny.folder / "finished"
    shutil.copytree(trained, out)
    results = tiny("finished", "--resume")
    assert results == json.loads((trained / "returned.json").read_text())
    assert same(weights(out / "model_final.pth"), weights(trained / "model_final.pth"))
    assert "total_loss" not in rows(out)[-1]


def test_two_iterations_and_everything_optional_off(tiny):
    short = ["SOLVER.IMS_PER_BATCH", 32, "DATALOADER.NUM_INSTANCE", 8, "SOLVER.MAX_EPOCH", 1, "TEST.DRAWS", 1]
    off = ["SOLVER.CHECKPOINT_PERIOD", 0, "TEST.EVAL_PERIOD", 0, "SOLVER.LOG_PERIOD", 0, "TEST.STORE", False, "SEED", -1]
    results = tiny("short", *short, *off, "TEST.TEXT_SOURCES", "('none',)", "DATASETS.MODES", "('indoor',)")
    out = tiny.folder / "short"
    assert [row["iteration"] for row in rows(out)] == [1, 2]
    assert set(results) == {f"indoor/infrared/{m}" for m in ("R-1", "R-5", "R-10", "R-20", "mAP", "mINP")} | {"metric"}
    assert rows(out)[-1]["metric"] == results["metric"]
    assert not (out / "evaluation").exists() and (out / "model_final.pth").exists()


def test_runs_on_stored_views_share_them_and_say_so(tiny, trained, tmp_path):
    options = ["MODEL.WEIGHTS", trained / "stage1" / "model_final.pth", "SOLVER.MAX_EPOCH", 1, "TEST.EVAL_PERIOD", 1]
    options += ["TVILFM.BANK.VIEWS", 2, "DATASETS.CACHE", tmp_path, "TEST.TEXT_SOURCES", "('self',)", "TEST.DRAWS", 1]
    tiny("bank", *options)
    banks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("features-*.npy")}
    assert len(banks) == 2
    tiny("bank-again", *options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("features-*.npy")} == banks
    one, other = (weights(tiny.folder / name / "model_final.pth") for name in ("bank", "bank-again"))
    assert same(one, other)
    log = (tiny.folder / "bank" / "log.txt").read_text()
    assert "2 stored views per image: an approximation" in log and "Feature bank" in log
    cards = json.loads(next((tiny.folder / "bank").rglob("results.json")).read_text())["cards"]
    assert cards and all("trained on 2 stored views per image" in card["note"] for card in cards.values())


@pytest.mark.parametrize("option", ["TVILFM.FROM_SCRATCH True", "TVILFM.FREEZE_BN False"])
def test_views_are_stored_only_of_what_is_frozen(tiny, option):
    with pytest.raises(ValueError, match=f"{option} changes it. Set TVILFM.BANK.VIEWS 0"):
        tiny("bank-refused", *option.split(), "TVILFM.BANK.VIEWS", 2)


def test_from_scratch_has_no_stage_1(tiny):
    out = tiny.folder / "scratch"
    tiny("scratch", "TVILFM.FROM_SCRATCH", True, "SOLVER.MAX_EPOCH", 1, "TEST.DRAWS", 1, "DATASETS.MODES", "('all',)")
    assert not (out / "stage1").exists() and (out / "model_final.pth").exists()


def test_the_reverse_direction_is_images_only(tiny, trained):
    reverse = ["DATASETS.TESTS", "('TriLLCM',)", "DATASETS.DIRECTION", "visible-to-infrared"]
    results = tiny("reverse", "--eval-only", "MODEL.WEIGHTS", trained / "model_final.pth", *reverse)
    assert {key.split("/")[1] for key in results if "/" in key} == {"visible"}
    assert results["metric"] == (results["all/visible/R-1"] + results["all/visible/mAP"]) / 2


# --- configs of the two stages ---------------------------------------------------------------------------------------


def test_overrides_reach_both_stages_unless_they_say_otherwise(tiny):
    cfg = read_config(tiny.config, ["SOLVER.MAX_EPOCH", "7", "STAGE1.SOLVER.MAX_EPOCH", "9", "INPUT.SIZE_TRAIN", "[64, 32]"])
    cfg.merge_from_list(["OUTPUT_DIR", "logs/x", "MODEL.META_ARCHITECTURE", "TVILFM"])
    cfg.SEED = 11
    cfg.freeze()
    first = stage1_config(cfg)
    assert (cfg.SOLVER.MAX_EPOCH, first.SOLVER.MAX_EPOCH) == (7, 9)
    assert first.INPUT.SIZE_TRAIN == cfg.INPUT.SIZE_TRAIN == [64, 32]
    assert first.MODEL.META_ARCHITECTURE == "VIBaseline" and cfg.MODEL.META_ARCHITECTURE == "TVILFM"
    assert os.path.join("logs/x", "stage1") == first.OUTPUT_DIR and first.SEED == 11 and first.is_frozen()


def test_a_stage_2_file_names_its_backbone_for_both_stages():
    cfg = read_config(ROOT / "projects" / "TVILFM" / "configs" / "sysu_vit.yml")
    cfg.merge_from_list(["STAGE1.MODEL.BACKBONE.DROP_PATH_RATIO", "0.2"])
    first = stage1_config(cfg)
    assert first.MODEL.DUAL_STREAM == cfg.MODEL.DUAL_STREAM and first.MODEL.DUAL_STREAM.BASE == "build_vit_backbone"
    assert first.MODEL.BACKBONE.FEAT_DIM == 768 and first.MODEL.HEADS.POOL_LAYER == "Identity"
    assert first.MODEL.PIXEL_STD == cfg.MODEL.PIXEL_STD == [127.5] * 3
    assert first.MODEL.BACKBONE.DROP_PATH_RATIO == 0.2, "STAGE1.KEY comes last"
    assert first.MODEL.BACKBONE.PRETRAIN and not cfg.MODEL.BACKBONE.PRETRAIN, "stage 1 alone brings ImageNet weights"
    assert first.SOLVER.MAX_EPOCH == 120 and first.MODEL.META_ARCHITECTURE == "VIBaseline", "the rest is stage 1's"


def test_mip_is_described_by_its_own_config():
    cfg = read_config(ROOT / "projects" / "TVILFM" / "configs" / "sysu_mip.yml")
    alone = read_config(ROOT / "projects" / "MIP" / "configs" / "sysu.yml")
    assert recipe(stage1_config(cfg)) == recipe(alone)


def test_odd_overrides_are_refused(tiny):
    with pytest.raises(ValueError, match="KEY VALUE pairs; 3 words"):
        get_cfg().merge_from_list(["SEED", "1", "OUTPUT_DIR"])
    with pytest.raises((KeyError, AssertionError), match="NO_SUCH_KEY"):
        get_cfg().merge_from_list(["NO_SUCH_KEY", "1"])
    cfg = read_config(tiny.config, ["STAGE1.NO_SUCH_KEY", "1"])
    with pytest.raises((KeyError, AssertionError), match="NO_SUCH_KEY"):
        stage1_config(cfg)


def test_stage_1_is_named_relative_to_the_file_that_names_it(tmp_path, tiny):
    leaf = tmp_path / "elsewhere" / "ablation.yml"
    leaf.parent.mkdir()
    leaf.write_text(f"_BASE_: {os.path.relpath(tiny.config, leaf.parent)}\nTVILFM: {{FUSION: Add}}\n")
    cfg = read_config(leaf)
    assert str(tiny.stage1) == cfg.TVILFM.STAGE1 and cfg.TVILFM.FUSION == "Add"
    other = tmp_path / "other.yml"
    other.write_text("SEED: 5\n")
    cfg.merge_from_file(str(other))
    assert str(tiny.stage1) == cfg.TVILFM.STAGE1


def test_stage_1_has_no_stage_1_of_its_own(tiny):
    cfg = read_config(tiny.config, ["TVILFM.STAGE1", str(tiny.stage1)])
    assert stage1_config(cfg).TVILFM.STAGE1 == ""
    cfg.TVILFM.STAGE1 = "no/such/file.yml"
    with pytest.raises(FileNotFoundError, match="no/such/file.yml.*MODEL.WEIGHTS"):
        stage1_config(cfg)


def test_a_recipe_names_what_changed():
    def changed(cfg, stored):
        return Identity(recipe(cfg)).differences(Identity(stored))

    cfg = small_config("VIBaseline")
    stored = recipe(cfg)
    cfg.merge_from_list(["TEST.DRAWS", 3, "DATALOADER.NUM_WORKERS", 9, "OUTPUT_DIR", "x", "MODEL.TEXT.ARCH", "y"])
    cfg.merge_from_list(["DATASETS.CACHE", "x", "SOLVER.LOG_PERIOD", 3])
    assert changed(cfg, stored) == []
    cfg.merge_from_list(["SOLVER.BASE_LR", 0.5, "INPUT.SIZE_TRAIN", [9, 9]])
    assert changed(cfg, stored) == ["INPUT.SIZE_TRAIN", "SOLVER.BASE_LR"]
    # A key that is newer than the stored recipe: only another value than its default is a change.
    stored = recipe(small_config("VIBaseline"))
    del stored["INPUT.RESAMPLE_TRAIN"]
    older = small_config("VIBaseline")
    assert changed(older, stored) == []
    older.merge_from_list(["INPUT.RESAMPLE_TRAIN", "bicubic"])
    assert changed(older, stored) == ["INPUT.RESAMPLE_TRAIN"]
    text = small_config("TVILFM")
    stored = recipe(text)
    text.merge_from_list(["TVILFM.FUSION", "Add"])
    assert changed(text, stored) == ["TVILFM.FUSION"]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_refused(tiny, trained):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint.*no.pth"):
        tiny("bad", "MODEL.WEIGHTS", trained / "no.pth")
    with pytest.raises(RuntimeError, match="unexpected text.ln_final.bias"):
        tiny("bad", "MODEL.WEIGHTS", trained / "model_final.pth", config=tiny.stage1)
    with pytest.raises(RuntimeError, match=r"shape \(8, 3, 7, 7\) instead of \(4, 3, 7, 7\) visual.*conv1.rgb.weight"):
        small = ["MODEL.BACKBONE.SMALL_WIDTH", 4, "MODEL.BACKBONE.FEAT_DIM", 32]
        tiny("bad", "MODEL.WEIGHTS", trained / "stage1" / "model_final.pth", *small)
    with pytest.raises(RuntimeError, match="missing text.token_embedding.weight"):
        tiny("bad", "--eval-only", "MODEL.WEIGHTS", trained / "stage1" / "model_final.pth")


def test_a_trained_model_goes_on_with_other_people(tiny, trained):
    """Fine-tuning stage 2: the classifier starts anew, and the log says so."""
    own = ["DATASETS.NAMES", "('TriLLCM',)", "DATASETS.TESTS", "('TriLLCM',)", "SOLVER.MAX_EPOCH", 1, "TEST.DRAWS", 1]
    data = tiny.folder / "data" / "LLCM" / "idx"
    lists = {path: path.read_text() for path in data.glob("train*")}
    assert lists
    try:
        for path, text in lists.items():
            path.write_text("".join(line for line in text.splitlines(True) if not line.rstrip().endswith(" 3")))
        tiny("tuned", "MODEL.WEIGHTS", trained / "model_final.pth", "SOLVER.IMS_PER_BATCH", 6, *own)
    finally:
        for path, text in lists.items():
            path.write_text(text)
    before, tuned = (weights(folder / "model_final.pth") for folder in (trained, tiny.folder / "tuned"))
    assert len(tuned["heads.classifier.weight"]) == 3 and len(before["heads.classifier.weight"]) == 4
    assert "The classifier starts anew" in (tiny.folder / "tuned" / "log.txt").read_text()


def test_resuming_with_another_model_is_refused(tiny, trained):
    shutil.copytree(trained, tiny.folder / "other-model")
    with pytest.raises(RuntimeError, match="instead of"):
        tiny("other-model", "--resume", "MODEL.BACKBONE.SMALL_BLOCKS", [1, 1, 1, 1], "MODEL.HEADS.NUM_CLASSES", 9)


def test_a_cache_that_cannot_be_written_names_the_key(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="DATASETS.CACHE"):
        tiny("no-cache", "DATASETS.CACHE", tmp_path / "file" / "cache", config=tiny.stage1)


def test_missing_data_sets_name_the_variable(tiny):
    with pytest.raises(FileNotFoundError, match="FASTREID_DATASETS"):
        tiny("no-data", "DATASETS.ROOT", "nowhere", config=tiny.stage1)
    with pytest.raises(KeyError, match="NoSuchSet"):
        tiny("no-data", "DATASETS.NAMES", "('NoSuchSet',)", config=tiny.stage1)
    with pytest.raises(ValueError, match="one Tri- data set"):
        tiny("no-data", "DATASETS.NAMES", "('TriSYSUMM01', 'TriLLCM')", config=tiny.stage1)
