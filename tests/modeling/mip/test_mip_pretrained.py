from pathlib import Path

import golden_inputs_mip as inputs
import pytest
import torch
from mip_models import deviation, mip_config, small_config
from torch import Tensor

from tvilfm_plugin.checkpoints.released_mip import official_names
from tvilfm_plugin.modeling.backbone_layouts import resize_position
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.mip.pretrained import load_vit, read_vit

GOLDEN = inputs.golden("pretrain_load.json")
STATS = GOLDEN["init_stats_without_checkpoint"]
DEPTH, WIDTH = 12, 8


def vit_file(path: Path) -> dict[str, Tensor]:
    """A small ViT in timm's format, with the head and the distillation token that must be left aside."""
    torch.manual_seed(3)
    block = {
        "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
        "attn.qkv.weight": (3 * WIDTH, WIDTH), "attn.qkv.bias": (3 * WIDTH,),
        "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
        "mlp.fc1.weight": (4 * WIDTH, WIDTH), "mlp.fc1.bias": (4 * WIDTH,),
        "mlp.fc2.weight": (WIDTH, 4 * WIDTH), "mlp.fc2.bias": (WIDTH,),
    }  # fmt: skip
    shapes = {f"blocks.{n}.{name}": shape for n in range(DEPTH) for name, shape in block.items()}
    shapes |= {"cls_token": (1, 1, WIDTH), "pos_embed": (1, 197, WIDTH), "dist_token": (1, 1, WIDTH)}
    shapes |= {"patch_embed.proj.weight": (WIDTH, 3, 16, 16), "patch_embed.proj.bias": (WIDTH,)}
    shapes |= {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "head.weight": (10, WIDTH), "head.bias": (10,)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save({"state_dict": state}, path)
    return state


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("vit") / "vit.pth"
    return path, vit_file(path)


def config(path: Path, **mip: object):  # type: ignore[no-untyped-def]
    cfg = mip_config(WIDTH=WIDTH, HEADS=2, **{"IAEL_READER": "block", **mip})
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = True, str(path)
    return cfg


def test_every_tensor_comes_from_where_it_should(vit: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = vit
    torch.manual_seed(0)
    fresh = MIP(mip_config(WIDTH=WIDTH, HEADS=2, IAEL_READER="block")).state_dict()
    torch.manual_seed(0)
    loaded = MIP(config(path)).state_dict()
    for name, value in loaded.items():
        for theirs in official_names(name):
            source = GOLDEN["source"].get(theirs)
            if source is None:
                assert torch.equal(value, fresh[name]), name
            elif source.startswith("pos_embed"):
                assert torch.equal(value, resize_position(state["pos_embed"], (21, 10)))
            else:
                assert torch.equal(value, state[source]), name


def test_the_generator_is_a_random_block_zero_or_the_loaded_one(vit: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = vit
    torch.manual_seed(0)
    unloaded = MIP(mip_config(WIDTH=WIDTH, HEADS=2)).visual
    torch.manual_seed(0)
    random = MIP(config(path)).visual
    warm = MIP(config(path, GENERATOR_INIT="pretrained")).visual
    for name, value in random.instance_prompts.block.state_dict().items():
        assert torch.equal(value, unloaded.blocks[0].state_dict()[name])
        assert torch.equal(warm.instance_prompts.block.state_dict()[name], state[f"blocks.0.{name}"])


def test_report(vit: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = vit
    paper = load_vit(MIP(mip_config(WIDTH=WIDTH, HEADS=2)).visual, read_vit(path), DEPTH)
    assert paper.unused == GOLDEN["unused_checkpoint_keys"]
    released = load_vit(MIP(mip_config(WIDTH=WIDTH, HEADS=2, BLOCKS=10)).visual, read_vit(path), DEPTH)
    # The released model never runs block 10.
    assert set(released.unused) - set(paper.unused) == {name for name in state if name.startswith("blocks.10.")}
    assert "modality_prompts.library" in paper.initial and "embedding.camera" in paper.initial


def test_position_tables() -> None:
    table = torch.from_numpy(inputs.position_table())
    golden = inputs.golden("posembed.npz")
    for name, grid in inputs.POSITION_GRIDS.items():
        assert deviation(resize_position(table, grid), golden[name]) < 5e-6
    ramp = torch.cat([torch.zeros(1, 1, 1), torch.arange(14.0).repeat_interleave(14).view(1, 196, 1)], dim=1)
    resized = resize_position(ramp, (21, 10))[0, 1:, 0].view(21, 10)
    assert resized[:3, 0].tolist() == pytest.approx([0, 0.5, 7 / 6], abs=1e-6)
    with pytest.raises(ValueError, match="square grid"):
        resize_position(torch.zeros(1, 12, 4), (2, 2))


def test_what_does_not_fit_is_named(vit: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    path, state = vit
    with pytest.raises(ValueError, match="12 blocks, but MODEL.MIP.DEPTH is 4"):
        load_vit(MIP(small_config()).visual, read_vit(path), 4)
    with pytest.raises(ValueError, match=r"lacks 1 entries, e.g. norm.bias"):
        load_vit(MIP(mip_config(WIDTH=8, HEADS=2)).visual, {k: v for k, v in state.items() if k != "norm.bias"}, DEPTH)
    with pytest.raises(ValueError, match="MODEL.MIP.WIDTH"):
        load_vit(MIP(mip_config(WIDTH=16, HEADS=2)).visual, state, DEPTH)
    with pytest.raises(FileNotFoundError, match="PRETRAIN_PATH"):
        read_vit(tmp_path / "none.pth")


def test_random_initial_values() -> None:
    """Spread and bounds of what no checkpoint brings, at full width (two blocks tell as much as twelve)."""
    torch.manual_seed(0)
    model = MIP(mip_config(DEPTH=5, IAEL_READER="block"))
    official = {theirs: value for name, value in model.state_dict().items() for theirs in official_names(name)}
    library = model.visual.modality_prompts.library
    official |= {"base.prompt_embeddings": library[:, 0], "base.deep_prompt_embeddings": library[:, 1:]}
    for name, expected in STATS.items():
        value = official[name]
        assert value.std().item() == pytest.approx(expected["std"], rel=0.06, abs=1e-9), name
        if "prompt_embeddings" in name or name == "base.prompt_proj.bias":
            assert value.abs().max().item() == pytest.approx(expected["max"], rel=0.02), name
    for name, value in official.items():
        if ".norm" in name and name.endswith("weight"):
            assert torch.equal(value, torch.ones_like(value)), name
        if name.endswith(("fc1.bias", "qkv.bias", "norm1.bias", "b1.1.bias")):
            assert not value.any(), name
    # Both branches and IAEL's reader begin as one.
    for part in ("0.attn.qkv.weight", "0.mlp.fc1.weight"):
        assert torch.equal(official[f"b1.{part}"], official[f"b2.{part}"])
        assert torch.equal(official[f"b1.{part}"], official[f"b3.{part}"])
