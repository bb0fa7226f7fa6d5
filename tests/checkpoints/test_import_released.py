"""The authors' files as ours: every key accounted for, and the golden numbers come out."""

import gc
from pathlib import Path

import golden_inputs as inputs
import golden_inputs_mip as inputs_mip
import numpy as np
import pytest
import torch
from mip_models import small_config as small_mip_config
from oracles_modeling import golden, golden_json, small_config, small_model, write_tower
from released_names import to_official
from run_scripts import load_tool

from tvilfm_plugin.checkpoints.import_released import import_released, read_released
from tvilfm_plugin.checkpoints.loading import load_weights, read_checkpoint
from tvilfm_plugin.checkpoints.released_keys import from_official, released_key
from tvilfm_plugin.config import read_config
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.engine.trained import load_for_test
from tvilfm_plugin.evaluation.ensemble import pack
from tvilfm_plugin.evaluation.mer import batch_norm_affine, unit_after
from tvilfm_plugin.evaluation.provenance import Provenance, TrainingSet
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.fusion import FilteredAdd
from tvilfm_plugin.modeling.identity_head import IdentityHead
from tvilfm_plugin.modeling.mip.mip import MIP

ROOT = Path(__file__).parents[2]
MIP_KEYS = inputs_mip.golden("state_dict_keys.json")
IR, TEXT, FUSION, RGB = Modality.IR, Modality.TEXT, Modality.FUSION, Modality.RGB
BACKUP = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def with_backup(state, pool):
    """A state dict of stage 2: 488 keys."""
    backup = {f"backup_classifier.BN.{name}": state[f"classifier.BN.{name}"] * 2 for name in BACKUP}
    backup["backup_classifier.classifier.weight"] = state["classifier.classifier.weight"]
    return {**state, **backup, "backup_pool.p": torch.tensor([pool])}


def golden_weights():
    keys = golden_json("state_dict_keys")["keys"]
    return {e["key"]: torch.from_numpy(np.asarray(inputs.weight(e["i"], e["key"], e["shape"]))) for e in keys}


def close(ours, theirs, tolerance=1e-4):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert difference <= tolerance, difference


@torch.no_grad()
def test_a_stage_2_file_gives_the_golden_numbers(tmp_path, capsys):
    """488 keys, wrapped and prefixed, through the tool, the config and the trainer's loading."""
    official = with_backup(golden_weights(), 2.5)
    assert len(official) == 488
    file, out = tmp_path / "model_Fusion_118.pth", tmp_path / "sysu.pth"
    torch.save({"net": {f"module.{name}": value for name, value in official.items()}, "epoch": 118}, file)
    assert load_tool("import_released").main(["--method", "tvilfm", "--weights", str(file), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "mapped: 486" in printed and "ignored: 3" in printed and "missing: 0" in printed and "unexplained: 0" in printed
    assert "logit_scale: the temperature" in printed and "backup_classifier.classifier.weight: stage 1's" in printed
    del official
    file.unlink()

    cfg = read_config(ROOT / "projects/TVILFM/configs/sysu_released.yml")
    cfg.merge_from_list(["MODEL.WEIGHTS", str(out), "MODEL.TEXT.WEIGHTS", "", "MODEL.HEADS.NUM_CLASSES", 395])
    cfg.MODEL.DEVICE = "cpu"
    model = TriTrainer.build_model(cfg)
    load_for_test(cfg, model)
    out.unlink()
    model.eval()
    assert model.provenance.epoch_rule == "best Rank-1 on the test set"
    reference, tokens = golden("model_forward"), golden("tokenizer")
    raw, stage1 = {}, {}
    for modality, seed in ((RGB, 701), (IR, 702)):
        pixels = torch.from_numpy(inputs.images(seed, 3)[0].transpose(0, 3, 1, 2).copy())
        raw[modality], stage1[modality] = model.encode_images_both_ways(pixels, modality).chunk(2, dim=1)
        close(raw[modality], reference[f"{modality.value}/pooled"])
        close(model.embed(raw[modality]), reference[f"{modality.value}/embedding"])
        if modality is IR:  # the copy of stage 1 has a pooling and a neck of its own
            maps = model.visual.maps({IR: pixels})[IR].double()
            close(stage1[IR], maps.clamp(min=1e-6).pow(2.5).mean(dim=(2, 3)).pow(1 / 2.5))
            assert not torch.allclose(stage1[IR], raw[IR], rtol=1e-2)
            assert torch.allclose(model.stage1.neck.weight, 2 * model.heads.neck.weight)
    text = model.encode_text(torch.from_numpy(tokens["description"][:6]))
    close(text, reference["text/eot_feat"][:6])

    # Eq. 7 and Eq. 10 in numpy, from the golden features and the seeded neck.
    index = {e["key"]: (e["i"], e["shape"]) for e in golden_json("state_dict_keys")["keys"]}
    gain, bias, mean, var = (
        inputs.weight(index[f"classifier.BN.{name}"][0], f"classifier.BN.{name}", index[f"classifier.BN.{name}"][1])
        for name in BACKUP[:4]
    )

    def unit(rows):
        after = (rows - mean) / np.sqrt(var + 1e-5) * gain + bias
        return after / np.linalg.norm(after, axis=1, keepdims=True)

    ir, rgb, texts = reference["ir/pooled"], reference["rgb/pooled"], reference["text/eot_feat"]
    fused = ir + texts[:3] - texts[3:6]
    ours = model.fusion(raw[IR], text[:3], text[3:])
    close(ours, fused)
    members = {IR: model.embed(raw[IR]), TEXT: model.embed(text[:3]), FUSION: model.embed(ours)}
    packed = pack(members, model.members) @ pack({RGB: model.embed(raw[RGB])}, model.members).T
    close(packed, (unit(ir) + unit(texts[:3]) + unit(fused)) @ unit(rgb).T)
    del model
    gc.collect()


def test_golden_ensemble_and_fusion_through_an_imported_neck():
    ir, text, fusion, rgb, *neck = (torch.from_numpy(a) for a in inputs.ensemble_input())
    official = dict(zip((f"classifier.BN.{name}" for name in BACKUP[:4]), neck, strict=True))
    official["classifier.BN.num_batches_tracked"] = torch.tensor(0)
    official["classifier.classifier.weight"] = torch.zeros(5, 64)
    head = IdentityHead(dim=64, num_classes=5)
    found = from_official(official, {f"heads.{name}": value.shape for name, value in head.state_dict().items()})
    assert not found.missing and not found.unused
    head.load_state_dict({name.removeprefix("heads."): value for name, value in found.state.items()})
    embed = unit_after(*batch_norm_affine(head.neck))
    reference = golden("ensemble")
    queries = {IR: embed(ir), TEXT: embed(text), FUSION: embed(fusion)}
    for modality, name in ((IR, "feat_ir"), (TEXT, "feat_text"), (FUSION, "feat_fusion")):
        close(queries[modality], reference[name], 1e-6)
    close(pack(queries, tuple(queries)) @ pack({RGB: embed(rgb)}, tuple(queries)).T, reference["sim"], 2e-6)
    f_ir, t_rgb, t_ir = (torch.from_numpy(a) for a in inputs.sff_input())
    close(FilteredAdd(dim=2048)(f_ir, t_rgb, t_ir), golden("sff")["fusion"], 1e-6)


# --- small files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """Config of a small stage-2 model in preset released, and its stage-1 file with the authors' names."""
    tower = write_tower(tmp_path)
    cfg = small_config("TVILFM", tower, "TVILFM.IR_NECK", "stage1", "TVILFM.PRESET", "released")
    model = small_model("TVILFM", tower)
    official = {released_key(name): value for name, value in model.state_dict().items()}
    return cfg, model, {**official, "logit_scale": torch.tensor(2.66)}


def test_a_stage_1_file_serves_both_stages(tmp_path, small):
    cfg, source, official = small
    torch.save(official, tmp_path / "stage1.pth")
    record = Provenance((TrainingSet("regdb", 3, (4, 7)),))
    report = import_released("tvilfm", tmp_path / "stage1.pth", tmp_path / "ours.pth", cfg, record)
    assert report.complete and len(report.mapped) == len(source.state_dict())
    state, stored = read_checkpoint(tmp_path / "ours.pth")
    assert stored.trained_on == record.trained_on and stored.optional == ("text.",)

    first = small_model("VIBaseline", seed=5)
    loaded = load_weights(first, tmp_path / "ours.pth")
    assert loaded.kept == [] and all(torch.equal(value, state[name]) for name, value in first.state_dict().items())

    second = TriTrainer.build_model(cfg)
    loaded = load_weights(second, tmp_path / "ours.pth", may_miss=("text.", "stage1."))
    assert {name.split(".")[0] for name in loaded.kept} == {"stage1"}
    second.keep_stage1()
    assert torch.equal(second.stage1.pool.p, source.visual.pool.p)
    assert torch.equal(second.stage1.neck.running_var, source.heads.neck.running_var)
    assert torch.equal(second.text.text_projection, source.text.text_projection)
    with pytest.raises(RuntimeError, match="missing stage1.pool.p"):
        load_weights(second, tmp_path / "ours.pth")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": {"net": s}}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_and_prefixes(tmp_path, wrap, prefix):
    torch.save(wrap({f"{prefix}{name}": torch.ones(2).half() for name in ("a.b", "c")}), tmp_path / "x.pth")
    state, beside = read_released(tmp_path / "x.pth")
    assert set(state) == {"a.b", "c"} and beside in ([], ["epoch"])


def test_half_precision_becomes_single():
    found = from_official({"base_model.visual.GEM.p": torch.ones(1).half()}, {"visual.pool.p": (1,)})
    assert found.state["visual.pool.p"].dtype == torch.float32


def test_files_that_are_no_state_dicts(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(ValueError, match="loading it would run code.*state_dict"):
        read_released(tmp_path / "model.pth")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list"):
        read_released(tmp_path / "list.pth")
    torch.save({"a": torch.ones(1), "note": "x"}, tmp_path / "mixed.pth")
    with pytest.raises(ValueError, match="no tensors: note"):
        read_released(tmp_path / "mixed.pth")
    with pytest.raises(FileNotFoundError, match="--weights"):
        read_released(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"base_model.visual.conv9.weight": torch.ones(2)}), "unexplained: 1\n  base_model.visual.conv9"),
        (lambda s: s.update({"text.extra": torch.ones(2)}), "unexplained: 1\n  text.extra"),
        (lambda s: s.pop("classifier.BN.bias"), "missing: 1\n  heads.neck.bias"),
        (lambda s: s.update({"classifier.BN.bias": torch.ones(3)}), r"shape: 1\n.*, classifier.BN.bias is \(3,\)"),
        (lambda s: s.pop("backup_pool.p"), "missing: 1\n  stage1.pool.p"),
    ],
)
def test_anything_unexplained_is_an_error_and_nothing_is_written(tmp_path, small, change, message):
    cfg, _, official = small
    official = with_backup(official, 3.0)
    change(official)
    torch.save(official, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message):
        import_released("tvilfm", tmp_path / "file.pth", tmp_path / "out.pth", cfg)
    assert not (tmp_path / "out.pth").exists()


def test_the_keys_of_the_authors_mip_are_all_accounted_for(tmp_path, capsys):
    keys = {name: entry["shape"] for name, entry in MIP_KEYS["keys"].items() if name not in MIP_KEYS["only_in_b_b3"]}
    torch.save({f"module.{name}": torch.zeros(()).expand(shape) for name, shape in keys.items()}, tmp_path / "mip.pth")
    words = ["--method", "mip", "--weights", str(tmp_path / "mip.pth"), "--out", str(tmp_path / "ours.pth")]
    assert load_tool("import_released").main(words) == 0
    printed = capsys.readouterr().out
    assert "missing: 0" in printed and "unexplained: 0" in printed and "(IAEL)" in printed
    assert load_tool("import_released").main([*words[:3], str(tmp_path / "none.pth"), *words[4:]]) == 1
    assert "--weights names" in capsys.readouterr().err


def test_mip(tmp_path):
    cfg = small_mip_config()
    model = MIP(cfg)
    official = to_official(model.state_dict()) | {"base.fc.weight": torch.zeros(3, 3)}
    torch.save(official, tmp_path / "mip.pth")
    report = import_released("mip", tmp_path / "mip.pth", tmp_path / "ours.pth", cfg)
    assert report.complete and list(report.ignored) == ["base.fc.weight"]
    other = MIP(cfg)
    load_weights(other, tmp_path / "ours.pth")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    torch.save(official | {"strange.weight": torch.zeros(1)}, tmp_path / "mip.pth")
    with pytest.raises(ValueError, match="unexplained: 1\n  strange.weight"):
        import_released("mip", tmp_path / "mip.pth", tmp_path / "ours.pth", cfg)
    with pytest.raises(ValueError, match="no checkpoint of mip"):
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        import_released("mip", tmp_path / "other.pth", tmp_path / "ours.pth", cfg)
