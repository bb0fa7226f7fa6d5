"""Every shipped config loads, every key of ours is read somewhere, and every default path takes one real step."""

import ast
import dataclasses
import functools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import ROOT

pytest.importorskip("fastreid")

from fastreid.config import get_cfg as host_cfg
from fastreid.utils.events import EventStorage
from yacs.config import CfgNode

from tvilfm_plugin.config import ConfigError, get_cfg, read_config
from tvilfm_plugin.config.check import check_config
from tvilfm_plugin.config.names import registered
from tvilfm_plugin.engine import TriTrainer, uses_text
from tvilfm_plugin.engine.config_report import config_report, keys_reference
from tvilfm_plugin.keys.host import HOST_KEYS
from tvilfm_plugin.keys.table import KEYS
from tvilfm_plugin.modeling.backbones import build_visual_encoder

SHIPPED = sorted([*ROOT.glob("configs/*.yml"), *ROOT.glob("projects/*/configs/*.yml")])
# Other backbones, as they are, take their step in modeling/test_registered_backbones.py.
BACKBONES = set(json.loads((ROOT / "benchmarks" / "backbones.json").read_text())) - {"sysu"}
TVILFM = sorted(path for path in ROOT.glob("projects/TVILFM/configs/*.yml") if path.stem not in BACKBONES)
# The same for all of them: the size, and no weight decay, which would move what has no gradient.
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False, "MODEL.DUAL_STREAM.BASE", "build_small_resnet_backbone",
    "MODEL.BACKBONE.SMALL_WIDTH", 8, "MODEL.BACKBONE.SMALL_BLOCKS", (1, 1, 1, 1), "MODEL.BACKBONE.FEAT_DIM", 64,
    "MODEL.MIP.WIDTH", 16, "MODEL.MIP.DEPTH", 3, "MODEL.MIP.HEADS", 2, "MODEL.MIP.PATCH", 8, "MODEL.MIP.PARTS", 3,
    "MODEL.TEXT.WEIGHTS", "", "MODEL.DUAL_STREAM.WEIGHTS", "", "INPUT.SIZE_TRAIN", [48, 24],
    "INPUT.SIZE_TEST", [48, 24], "DATASETS.ROOT", "",
    "DATALOADER.NUM_WORKERS", 0, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 8, "SEED", 1,
    "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.TEXT_WEIGHT_DECAY", 0.0, "SOLVER.TEXT_BIAS_WEIGHT_DECAY", 0.0,
]  # fmt: skip


def read(path: Path, *overrides: object) -> CfgNode:
    cfg = read_config(path, overrides)
    cfg.freeze()
    return cfg


def flat(node: CfgNode, prefix: str = "") -> set[str]:
    """All `SECTION.KEY` of a config."""
    keys = set()
    for name, value in node.items():
        keys |= flat(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else {prefix + name}
    return keys


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_survives_a_dump(path, tmp_path):
    cfg = read(path)
    if cfg.TVILFM.STAGE1:
        assert Path(cfg.TVILFM.STAGE1).is_file() and not uses_text(read(Path(cfg.TVILFM.STAGE1)))
    if path.parent.name == "configs" and path.parent.parent != ROOT:
        assert cfg.OUTPUT_DIR.startswith("logs/") and cfg.DATASETS.NAMES == cfg.DATASETS.TESTS
    again = tmp_path / "config.yaml"
    again.write_text(cfg.dump())
    assert str(read(again)) == str(cfg)


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.parent.parent != ROOT], ids=lambda path: path.stem)
def test_the_visual_part_of_every_shipped_config_can_be_built_as_it_is(path):
    cfg = read(path, "MODEL.BACKBONE.PRETRAIN", False, "MODEL.DUAL_STREAM.WEIGHTS", "", "MODEL.DEVICE", "cpu")
    # fast-reid's ViT asks a tensor for a number while it is built, which one without memory cannot give.
    with torch.device("cpu" if cfg.MODEL.DUAL_STREAM.BASE == "build_vit_backbone" else "meta"):
        encoder = build_visual_encoder(cfg)
    assert encoder.dim >= 256


def test_output_folders_are_distinct():
    folders = [read(path).OUTPUT_DIR for path in SHIPPED if path.parent.parent != ROOT]
    assert len(folders) == len(set(folders))


def test_leaf_configs_say_only_what_differs():
    def walk(node, prefix=""):
        for name, inner in node.items():
            yield from walk(inner, f"{prefix}{name}.") if isinstance(inner, dict) else [prefix + name]

    def value(node, key):
        return functools.reduce(lambda inner, name: inner[name], key.split("."), node)

    for path in [path for path in SHIPPED if path.parent.parent != ROOT]:
        content = yaml.safe_load(path.read_text())
        if base := content.pop("_BASE_", ""):
            cfg, parent = read(path), read(path.parent / base)
            same = [key for key in walk(content) if value(cfg, key) == value(parent, key)]
            assert not same, f"{path.name} repeats {', '.join(same)}"


def unread(keys):
    """Of full keys, those whose last word no module of the package reads as an attribute or by `get`."""
    loaded: set[str] = set()
    for path in (ROOT / "tvilfm_plugin").rglob("*.py"):
        if path.parent.name == "keys":  # the table itself
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                loaded.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isupper():
                loaded.add(node.value)  # cfg.get("KEY")
    return {key for key in keys if key.rsplit(".", 1)[-1] not in loaded}


def test_every_key_of_ours_is_read():
    keys = flat(get_cfg()) - flat(host_cfg())
    assert len(keys) > 40 and {key.name for key in KEYS} == keys - {"TVILFM.OVERRIDES", "TVILFM.STAGE1_OVERRIDES"} | {"SEED"}
    assert not unread(keys)
    assert unread({"TVILFM.NOBODY_ASKS"}) == {"TVILFM.NOBODY_ASKS"}


def test_the_table_agrees_with_itself_and_with_the_documentation():
    for key in KEYS:
        assert not key.problem(key.default, lambda registry: ()) and key.meaning.endswith((".", ")")), key.name
        assert key.default == functools.reduce(lambda node, name: node[name], key.name.split("."), get_cfg()), key.name
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == keys_reference(), "docs/config.md is not current"


# --- one check, for training and for `tvilfm config` -------------------------------------------------------------------

SYSU = ROOT / "projects" / "TVILFM" / "configs" / "sysu.yml"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_pass_without_a_warning(path):
    if path.parent.parent != ROOT:
        assert "warning" not in config_report(str(path))


def test_the_report_names_every_origin():
    lines = config_report(str(SYSU), ["SOLVER.BASE_LR", "1", "TVILFM.JOINT", "False"]).splitlines()
    said = {line.split(":")[0]: line for line in lines}
    assert "sysu.yml, line 5" in said["DATASETS.NAMES"] and "Base-VI.yml, line 23" in said["INPUT.SIZE_TRAIN"]
    assert said["SOLVER.BASE_LR"].split() == ["SOLVER.BASE_LR:", "1.0", "#", "command", "line"]
    assert "'baseline'" in said["TVILFM.ROWS"] and said["TEST.DRAWS"].endswith("# default")
    assert config_report("", []).count("# default") == len(lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["TVILFM.FUSSION", "Add"], "no key 'TVILFM.FUSSION'. Did you mean TVILFM.FUSION?"),
        (["seed", "1"], "Did you mean SEED?"),
        (["BASE_LR", "1"], "Did you mean SOLVER.BASE_LR?"),
        (["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR is 'fast'; it must be a number"),
        (["SOLVER.BASE_LR", "-1.0"], "it must be a number of at least 0"),
        (["SEED", "1.5"], "whole number from -1 to"),
        (["TVILFM", "1"], "TVILFM is a section"),
        (["INPUT.CAJ.GRAY_PROB", "1.5"], "INPUT.CAJ.GRAY_PROB is 1.5; it must be a number from 0 to 1."),
        (["TEST.TEXT_SEEDS", "()"], "must hold 1 or more entries"),
        (["TEST.TEXT_SEEDS", "(0, 0)"], "names 0 twice"),
        (["TVILFM.PRESET", "mine"], "choices are paper, released"),
        (["MODEL.PIXEL_STD", "(1.0,)"], "must hold 3 entries"),
        (["SOLVER.MAX_EPOCH", "-1"], "at least 0"),
        (["TVILFM.FUSION", "Nope"], "TVILFM.FUSION is 'Nope'; choices are Add, FilteredAdd, "),
        (["INPUT.REA.ENABLED", "True"], "INPUT.REA.ENABLED is True, but no Tri- run reads it: erasing is INPUT.CAJ"),
        (["MODEL.HEADS.MARGIN", "0.2"], "IdentityHead does not read it"),
        (["MODEL.LOSSES.TRI.MARGIN", "0.2"], "TVILFM does not read it"),
        (["MODEL.BACKBONE.SIE_COE", "2.0"], "build_resnet_backbone does not read it"),
        (["DATALOADER.SAMPLER_TRAIN", "NaiveIdentitySampler"], "choices are IdentityPairSampler, ModalPairSampler"),
        (["SOLVER.SCHED", "MultiStepLR"], "set SOLVER.SCHED WarmupMultiStep"),
        (["TEST.TEXT_SOURCES", "('human',)"], "TEST.HUMAN_TEXTS names no file"),
        (["STAGE1.SOLVER.NOPE", "1"], "no key 'SOLVER.NOPE'"),
    ],
)
def test_a_fault_is_one_sentence(words, message):
    with pytest.raises(ValueError) as caught:
        config_report(str(SYSU), words)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def values_of(key):
    """Anything, the key's choices, and numbers at and beyond its ends."""
    ends = [end for end in (key.low, key.high, key.above) if end is not None]
    near = [number for end in ends for number in (end, end - 1, end + 1, float(end), end - 1e-6, end + 1e-6)]
    names = key.choices if isinstance(key.choices, tuple) else registered(key.choices) if key.choices else ()
    one = st.one_of(
        st.sampled_from([*near, *names, key.default, "", "nope", "a\0b"]),
        st.sampled_from([None, True, 0, -1, 1.5, 2**70, 10**400, math.inf, math.nan]),
        st.integers(-3, 3), st.floats(width=32), st.text(max_size=4),
    )  # fmt: skip
    return st.one_of(one, st.lists(one, max_size=4), st.lists(one, max_size=4).map(tuple))


@functools.cache
def sysu():
    return read(SYSU, "MODEL.DEVICE", "cpu", "TEST.HUMAN_TEXTS", "phrases.txt")


def fits(key, value):
    """Whether a value is one of a key, said another way than `Key.problem` does."""
    if key.kind.startswith("list of "):
        values, (least, most) = list(value), key.count
        one = dataclasses.replace(key, default=key.default[0] if key.default else 0.0, count=(0, None))
        counted = least <= len(values) <= (most or len(values))
        return counted and all(fits(one, part) for part in values) and not (key.unique and len(set(values)) < len(values))
    if key.kind in ("bool", "str"):
        names = registered(key.choices) if isinstance(key.choices, str) and key.choices else key.choices
        return type(value).__name__ == key.kind and (not names or value in names or key.optional and value == "")
    low, high = (-math.inf if key.low is None else key.low), (math.inf if key.high is None else key.high)
    above = -math.inf if key.above is None else key.above
    most = 2**63 - 1 if key.kind == "int" else sys.float_info.max
    return type(value).__name__ == key.kind and -most <= value <= most and low <= value <= high and above < value


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from([*HOST_KEYS, *KEYS]), data=st.data())
def test_every_value_of_every_key_fits_or_is_refused_by_name(key, data):
    value = data.draw(values_of(key))
    cfg = sysu().clone()
    cfg.defrost()
    try:
        cfg.merge_from_list([key.name, value])
        check_config(cfg)
    except ConfigError as error:
        assert key.name in str(error) and len(str(error).splitlines()) == 1, error
    else:
        assert fits(key, functools.reduce(lambda node, name: node[name], key.name.split("."), cfg)), value


def test_training_refuses_what_the_report_refuses(tiny, tmp_path):
    with pytest.raises(ConfigError, match="CJ.ENABLED is True, but no Tri- run reads it"):
        tiny("refused", "INPUT.CJ.ENABLED", "True", config=tiny.stage1)
    with pytest.raises(KeyError, match="DATASETS.NAMES .or DATASETS.TESTS. is 'nope', but there are only .*TriSYSUMM01"):
        tiny("refused", "DATASETS.NAMES", "('nope',)", config=tiny.stage1)
    with pytest.raises(ConfigError, match="SOLVER.GAMMA is -0.5"):
        tiny("refused", "SOLVER.GAMMA", "-0.5", config=tiny.stage1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "leaf.yml is empty"),
        ("- 1\n", "holds no KEY: VALUE pairs but one list"),
        ("MODEL:\n\tDEVICE: cpu\n", "leaf.yml, line 2: this is no YAML"),
        ("TVILFM: {FUSSION: Add}\n", "leaf.yml, line 1: there is no key 'TVILFM.FUSSION'. Did you mean TVILFM.FUSION?"),
        ("SEED: 1\nTEST:\n  DRAWS: many\n", "leaf.yml, line 3: TEST.DRAWS is 'many'; it must be a whole number"),
        ("_BASE_: leaf.yml\n", "a ring"),
        ("_BASE_: nope.yml\n", "nope.yml, which"),
        ("_BASE_: 5\n", "must be the path of one file"),
        ("_BASE_: http://127.0.0.1:9/x.yml\n", "is no local file"),
        ("SEED: 010\n", "010 counts to the base of 8 or 60"),
        ("INPUT: {SIZE_TRAIN: [1:30, 24]}\n", "1:30 counts to the base of 8 or 60"),
        ("SEED: 1\nSEED: 2\n", "SEED stands in line 1 and in line 2"),
        ("SEED: !!python/name:os.system\n", "cannot be read"),
        ("SEED: {A: 1}\n", "no key 'SEED.A'"),
        ("TVILFM: 5\n", "TVILFM is a section"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "leaf.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        get_cfg().merge_from_file(str(path))
    assert message in str(caught.value) and "leaf.yml" in str(caught.value) and "\n" not in str(caught.value)


def test_flip_and_padding_and_sampler_mean_what_they_say(tiny):
    def pixels(*words):
        with tiny.environment():
            cfg = read(tiny.stage1, "MODEL.DEVICE", "cpu", *words)
            return next(iter(TriTrainer.build_train_loader(cfg)))

    plain = ("INPUT.CAJ.GRAY_PROB", 0.0, "INPUT.CAJ.RGB_ERASING_PROB", 0.0, "INPUT.CAJ.EXCHANGE_PROB", 0.0)
    off = ("INPUT.FLIP.ENABLED", False, "INPUT.PADDING.ENABLED", False)
    still, moved = pixels(*plain, *off), pixels(*plain)
    assert torch.equal(still["rgb"], still["rgb_aug"]) and still["rgb_path"] == moved["rgb_path"]
    assert not torch.equal(moved["rgb"], moved["rgb_aug"])
    mirrored = pixels(*plain, "INPUT.FLIP.PROB", 1.0, "INPUT.PADDING.ENABLED", False)
    assert torch.equal(mirrored["rgb"], still["rgb"].flip(3))
    assert pixels("DATALOADER.SAMPLER_TRAIN", "ModalPairSampler")["rgb_path"] != moved["rgb_path"]
    assert "rgb_aug" not in pixels("INPUT.AUGMENTATION", "MIP")


# --- one step --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage1_weights(tiny, tmp_path_factory):
    """Stage 1 of a config, not trained: a file that stage 2 can begin with."""
    files: dict[str, Path] = {}

    def make(cfg: CfgNode) -> str:
        name = cfg.TVILFM.STAGE1
        if name not in files:
            out = tmp_path_factory.mktemp("stage1")
            first = TriTrainer(read(Path(cfg.TVILFM.STAGE1), *SMALL, "OUTPUT_DIR", str(out)))
            files[name] = out / "model.pth"
            torch.save({"model": first.model.state_dict()}, files[name])
        return str(files[name])

    return make


@pytest.mark.parametrize("path", TVILFM, ids=lambda path: path.stem)
def test_one_step_reaches_everything_that_trains_and_nothing_else(path, tiny, stage1_weights, tmp_path):
    tower = str(tiny.config.with_name("tower.json"))
    options = [*SMALL, "MODEL.WEIGHTS", "", "MODEL.TEXT.ARCH", tower, "OUTPUT_DIR", str(tmp_path)]
    with tiny.environment():
        cfg = read(path, *options)
        if cfg.TVILFM.STAGE1:
            cfg = read(path, *options, "MODEL.WEIGHTS", stage1_weights(cfg))
        trainer = TriTrainer(cfg)
        trainer.resume_or_load(False)
        model = trainer.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with EventStorage(0):
            trainer.iter = 0
            trainer.run_step()
    after, parameters = model.state_dict(), dict(model.named_parameters())
    # In these configs none is analytically zero: with MJL the text has a loss of its own, so that ln_final's bias, which
    # cancels in the fusion, gets one too.
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, name
            assert not torch.equal(before[name], after[name]), name
        else:
            assert parameter.grad is None and torch.equal(before[name], after[name]), name
    drifted = {name for name in before if name not in parameters and not torch.equal(before[name], after[name])}
    neck = {f"heads.neck.{part}" for part in ("running_mean", "running_var", "num_batches_tracked")}
    if not uses_text(cfg) or cfg.TVILFM.FROM_SCRATCH:
        assert all(parameter.requires_grad for parameter in parameters.values()) and drifted > neck
    elif cfg.TVILFM.PRESET == "paper":
        assert drifted == neck
        assert {name.split(".")[0] for name, p in parameters.items() if not p.requires_grad} == {"visual"}
    else:
        assert drifted > neck and all(name.startswith("visual.") for name in drifted - neck), "released: BN drifts"
