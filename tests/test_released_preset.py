"""Preset released, from its config files: the difference table's keys, every learning rate, and one real training step."""

import gc

import golden_inputs as inputs
import numpy as np
import pytest
import torch
from oracles_modeling import golden_json, load_golden_weights, small_model, write_tower
from tiny_runs import ROOT

pytest.importorskip("fastreid")

from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

from tvilfm_plugin.checkpoints.released_keys import released_key
from tvilfm_plugin.config import read_config, stage1_config
from tvilfm_plugin.engine import TriTrainer, param_groups
from tvilfm_plugin.evaluation.evaluator import choose_protocol
from tvilfm_plugin.evaluation.protocols import SYSU

RATES = golden_json("param_groups_lr")
DATA = ("sysu", "regdb", "llcm")


def config(name):
    cfg = read_config(ROOT / "projects" / "TVILFM" / "configs" / f"{name}.yml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.HEADS.NUM_CLASSES = 395
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.TEXT.WEIGHTS = ""
    return cfg


@pytest.mark.parametrize("data", DATA)
def test_every_row_of_the_difference_table(data):
    """What the preset sets, and that preset paper does not."""
    released, paper = config(f"{data}_released"), config(data)
    expected = {
        "TVILFM.PRESET": ("released", "paper"),
        "SOLVER.MAX_EPOCH": (120, 20),
        "TVILFM.FREEZE_BN": (False, True),
        "TVILFM.IR_NECK": ("stage1", "shared"),
        "SOLVER.EPOCH_RULE": ("test", "last"),
        "TEST.EVAL_PERIOD": (2, 5),
        "TEST.ORACLE_STYLE": ("released", "paper"),
        "TEST.TEXT_SEEDS": ((1,), (0,)),
        "TEST.IMAGE_PROTOCOL": ("SYSU-MM01" if data == "llcm" else "", ""),
    }
    for key, (theirs, ours) in expected.items():
        for cfg, value in ((released, theirs), (paper, ours)):
            section, name = key.split(".")
            assert cfg[section][name] == value, key
    assert "oracle" in released.TEST.TEXT_SOURCES and {"witness", "self"} & set(released.TEST.TEXT_SOURCES)
    if data == "llcm":
        assert choose_protocol(released.TEST.IMAGE_PROTOCOL) is SYSU
    first = stage1_config(released)
    assert first.TVILFM.PRESET == "released" and first.SOLVER.EPOCH_RULE == "test" and first.TEST.EVAL_PERIOD == 2
    assert first.TEST.IMAGE_PROTOCOL == released.TEST.IMAGE_PROTOCOL and first.SOLVER.MAX_EPOCH == 120
    assert stage1_config(paper).SOLVER.EPOCH_RULE == "last"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TVILFM.FROM_SCRATCH", True, "there is no stage 1 from scratch. Set it to shared"),
        ("TVILFM.IR_NECK", "stage2", "TVILFM.IR_NECK is 'stage2'; choices are shared, stage1"),
    ],
)
def test_a_copy_of_stage_1_needs_a_stage_1(tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        small_model("TVILFM", write_tower(tmp_path), "TVILFM.IR_NECK", "stage1", key, value)


def test_an_unknown_protocol_lists_the_known():
    with pytest.raises(ValueError, match="TEST.IMAGE_PROTOCOL is 'sysu'; choices are SYSU-MM01, RegDB, LLCM, Market-1501"):
        choose_protocol("sysu")


@pytest.fixture(scope="module", params=["VIBaseline", "TVILFM"])
def full_size(request):
    """A model of the authors' size without storage: names and trainability are what rates depend on."""
    with torch.device("meta"):
        stage1 = "_stage1" if request.param == "VIBaseline" else ""
        return META_ARCH_REGISTRY.get(request.param)(config(f"sysu_released{stage1}"))


@pytest.mark.parametrize("data", DATA)
def test_rate_and_decay_of_every_parameter_equal_the_golden(full_size, data):
    stage = 2 if full_size.has_text else 1
    cfg = config(f"{data}_released" + ("_stage1" if stage == 1 else ""))
    expected = RATES[f"{'sysu' if data == 'llcm' else data}_stage{stage}"]["groups"]
    found = {released_key(g["name"]): (g["lr"], g["weight_decay"]) for g in param_groups(cfg, full_size)}
    # In stage 1 their text tower gets no gradient and in stage 2 their visual part and the copies of stage 1 get none.
    idle = lambda key: key.startswith("base_model.") and key.startswith("base_model.visual.") == (stage == 2)
    trained = [key for key in expected if not key.startswith(("logit_scale", "backup_")) and not idle(key)]
    assert sorted(found) == sorted(trained) and len(found) == {1: 166, 2: 152}[stage]
    for key in trained:
        assert found[key] == pytest.approx(tuple(expected[key])), key


# --- one step at full size, config -> model -> optimiser -> update -----------------------------------------------------


def batch(stage):
    data = inputs.train_batch(stage)
    views = (("rgb", 711), ("rgb_aug", 712), ("ir", 713))
    made = {name: torch.from_numpy(inputs.images(seed, 4, 96, 48)[0].transpose(0, 3, 1, 2).copy()) for name, seed in views}
    made["targets"] = torch.from_numpy(data["target_rgb"])
    if stage == 2:
        made.update(rgb_tokens=torch.from_numpy(data["text_rgb"]), ir_tokens=torch.from_numpy(data["text_ir"]))
    return made


def step(name, stage):
    """One step of the config's model with golden weights, at the full rates (epoch 10): model, losses, tensors before it."""
    cfg = config(name)
    model = TriTrainer.build_model(cfg)
    load_golden_weights(model, "train")
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer, _ = TriTrainer.build_optimizer(cfg, model)
    losses = model(batch(stage))
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    return model, {key: value.item() for key, value in losses.items()}, before


def test_stage_1_step_of_the_config():
    model, losses, before = step("sysu_released_stage1", 1)
    reference = golden_json("train_step")["stage1"]
    assert losses["loss_identity"] == pytest.approx(reference["losses"]["id_loss"], rel=1e-5)
    assert losses["loss_weighted_triplet"] == pytest.approx(reference["losses"]["wrt_loss"], rel=1e-4)
    for name, value in model.state_dict().items():
        delta = (value.double() - before[name].double()).norm().item()
        assert delta == pytest.approx(reference["after_step"][released_key(name)]["delta_l2"], rel=2e-3), name
    del model
    gc.collect()


def test_stage_2_step_of_the_config():
    """Losses as golden; 162 buffers of the frozen backbone drift; every trained tensor moves by its golden rate, unseen
    tokens included: with coupled decay, a first step of Adam is the rate times a sign."""
    model, losses, before = step("sysu_released", 2)
    reference, rates = golden_json("train_step")["stage2"]["losses"], RATES["sysu_stage2"]["groups"]
    assert losses["loss_identity"] == pytest.approx(reference["uni_id_loss"], rel=1e-5)
    assert losses["loss_weighted_triplet"] == pytest.approx(reference["uni_wrt_loss"], rel=1e-4)
    moved = {name: (value - before[name]).abs() for name, value in model.state_dict().items()}
    drifted = [name for name, delta in moved.items() if name.startswith("visual.") and delta.any()]
    assert len(drifted) == 162 and all("running" in name or "num_batches" in name for name in drifted)
    assert not any(delta.any() for name, delta in moved.items() if name.startswith("stage1."))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert moved[name].max().item() == pytest.approx(rates[released_key(name)][0], rel=1e-3), name
    tokens = batch(2)
    unseen = np.setdiff1d(np.arange(49408), torch.cat([tokens["rgb_tokens"], tokens["ir_tokens"]]).unique().numpy())
    rows = moved["text.token_embedding.weight"][torch.from_numpy(unseen)]
    assert len(unseen) > 49000 and (rows > 3e-4).float().mean() > 0.99
    del model
    gc.collect()
