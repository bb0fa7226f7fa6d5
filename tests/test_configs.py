"""Every shipped config loads, every key of ours is read somewhere, and every default path takes one real step."""

import ast
import functools
import json
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import ROOT

pytest.importorskip("fastreid")

from fastreid.config import get_cfg as host_cfg
from fastreid.utils.events import EventStorage
from yacs.config import CfgNode

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.engine import TriTrainer, uses_text

SHIPPED = sorted([*ROOT.glob("configs/*.yml"), *ROOT.glob("projects/*/configs/*.yml")])
# Other backbones, as they are, take their step in modeling/test_registered_backbones.py.
BACKBONES = set(json.loads((ROOT / "benchmarks" / "backbones.json").read_text())) - {"sysu"}
TVILFM = sorted(path for path in ROOT.glob("projects/TVILFM/configs/*.yml") if path.stem not in BACKBONES)
# The same for all of them: the size, and no weight decay, which would move what has no gradient.
SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False, "MODEL.DUAL_STREAM.BASE", "build_small_resnet_backbone",
    "MODEL.BACKBONE.SMALL_WIDTH", 8, "MODEL.BACKBONE.SMALL_BLOCKS", (1, 1, 1, 1), "MODEL.BACKBONE.FEAT_DIM", 64,
    "MODEL.MIP.WIDTH", 16, "MODEL.MIP.DEPTH", 3, "MODEL.MIP.HEADS", 2, "MODEL.MIP.PATCH", 8, "MODEL.MIP.PARTS", 3,
    "MODEL.TEXT.WEIGHTS", "", "INPUT.SIZE_TRAIN", [48, 24], "INPUT.SIZE_TEST", [48, 24], "DATASETS.ROOT", "",
    "DATALOADER.NUM_WORKERS", 0, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 8, "SEED", 1,
    "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.TEXT_WEIGHT_DECAY", 0.0, "SOLVER.TEXT_BIAS_WEIGHT_DECAY", 0.0,
]  # fmt: skip


def read(path: Path, *overrides: object) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(list(overrides))
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


def test_every_key_of_ours_is_read():
    keys = flat(get_cfg()) - flat(host_cfg())
    assert len(keys) > 40
    loaded: set[str] = set()
    for path in (ROOT / "tvilfm_plugin").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                loaded.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isupper():
                loaded.add(node.value)  # cfg.get("KEY")
    assert not {key for key in keys if key.rsplit(".", 1)[-1] not in loaded}


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
    options = [*SMALL, "MODEL.TEXT.ARCH", str(tiny.config.with_name("tower.json")), "OUTPUT_DIR", str(tmp_path)]
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
    if not uses_text(cfg):
        assert all(parameter.requires_grad for parameter in parameters.values()) and drifted > neck
    elif cfg.TVILFM.PRESET == "paper":
        assert drifted == neck
        assert {name.split(".")[0] for name, p in parameters.items() if not p.requires_grad} == {"visual"}
    else:
        assert drifted > neck and all(name.startswith("visual.") for name in drifted - neck), "released: BN drifts"
