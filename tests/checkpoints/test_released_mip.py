import golden_inputs_mip as inputs
import pytest
import torch
from mip_models import SMALL, mip_config, small_config
from released_names import to_official

from tvilfm_plugin.checkpoints.released_mip import DEEP_LIBRARY, from_official, identity_head_state, official_names
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.identity_head import IdentityHead
from tvilfm_plugin.modeling.mip.encoder import test_feature as joined_feature
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.vi_baseline import VIBaseline

KEYS = inputs.golden("state_dict_keys.json")


@pytest.mark.parametrize(("reader", "b3"), [("mean", False), ("block", True)])
def test_names_and_shapes_of_the_authors_model(reader: str, b3: bool) -> None:
    """Every tensor of ours has a counterpart of the same shape; what theirs has beyond is never used."""
    with torch.device("meta"):
        state = MIP(mip_config(BLOCKS=10, IAEL_READER=reader)).state_dict()
    official = to_official(state)
    assert {name: list(value.shape) for name, value in official.items()} == {
        name: KEYS["keys"][name]["shape"] for name in official
    }
    rest = {name for name in KEYS["keys"] if name not in official and (b3 or name not in KEYS["only_in_b_b3"])}
    unused = ("base.blocks.10.", "base.blocks.11.", "base.norm.", "base.fc.", "base.prompt_adapters.")
    assert {name for name in rest if not name.startswith(unused)} == (set() if b3 else {"zero_token"})


def small_official(**mip: object) -> dict[str, torch.Tensor]:
    """A small model under the authors' names, with what theirs has beyond."""
    torch.manual_seed(1)
    model = MIP(small_config(**mip))
    for neck in model.heads.necks:
        neck.running_mean.normal_()
    state = to_official(model.state_dict())
    return state | {"base.fc.weight": torch.zeros(3, 3), "base.blocks.10.norm1.weight": torch.zeros(3)}


def shapes_of(model: MIP) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def test_there_and_back() -> None:
    official = small_official()
    official[DEEP_LIBRARY][:, 2:] = 5.0
    model = MIP(small_config())
    found = from_official(official, shapes_of(model))
    assert found.unused == ["base.blocks.10.norm1.weight", "base.fc.weight"] and not found.missing
    model.load_state_dict(found.state)
    back = to_official(model.state_dict())
    assert DEEP_LIBRARY in back and not back[DEEP_LIBRARY][:, 2:].any()
    for name, value in back.items():
        if name != DEEP_LIBRARY:
            assert torch.equal(value, official[name]), name
    assert torch.equal(back[DEEP_LIBRARY][:, :2], official[DEEP_LIBRARY][:, :2])


def test_what_does_not_fit_is_named() -> None:
    official = small_official(IAEL_WEIGHT=0.0)
    assert "heads.prompt_necks.0.weight" in from_official(official, shapes_of(MIP(small_config()))).missing
    wider = from_official(official, shapes_of(MIP(small_config(IAEL_WEIGHT=0.0, WIDTH=64))))
    assert "visual.embedding.cls is (1, 1, 64), base.cls_token is (1, 1, 32)" in wider.misshapen
    # Other identities: the classifiers differ, and nothing else.
    other = small_config(IAEL_WEIGHT=0.0)
    other.MODEL.HEADS.NUM_CLASSES = 11
    found = from_official(official, shapes_of(MIP(other)))
    assert len(found.misshapen) == 5 and all(line.startswith("heads.classifier.") for line in found.misshapen)
    with pytest.raises(KeyError, match="INSTANCE_TYPE generator"):
        official_names("visual.instance_prompts.bank")


def test_missing_tensors_are_reported() -> None:
    shapes = shapes_of(MIP(small_config()))
    found = from_official({}, shapes)
    assert not found.state and found.missing == list(shapes)


def test_heads_as_one_neck_and_one_classifier() -> None:
    """Stage 2 of TVI-LFM continues from the five necks and classifiers, in one of each."""
    torch.manual_seed(0)
    model = MIP(small_config()).eval()
    with torch.no_grad():
        for neck in model.heads.necks:
            for value in (neck.weight, neck.bias, neck.running_mean):
                value.normal_()
            neck.running_var.uniform_(0.2, 2)
        for classifier in model.heads.classifier["branches"]:
            classifier.weight.normal_()
    state = identity_head_state(model.state_dict())
    head = IdentityHead(dim=5 * SMALL["WIDTH"], num_classes=6).eval()
    head.load_state_dict({k.removeprefix("heads."): v for k, v in state.items() if k.startswith("heads.")})
    vectors = torch.randn(7, 5, SMALL["WIDTH"])
    _, logits = head(joined_feature(vectors))
    separate = model.heads(vectors)
    expected = separate[0] / 2 + sum(separate[1:]) / 8
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert {k for k in state if k.startswith("visual.")} == {f"visual.{k}" for k in model.visual.state_dict()}
    with pytest.raises(KeyError, match="no MIP checkpoint"):
        identity_head_state({"a": vectors})


def test_a_mip_run_is_a_stage_one() -> None:
    """A model with MIP's encoder and TVI-LFM's head takes the translated weights without a remainder."""
    torch.manual_seed(0)
    trained = MIP(small_config()).eval()
    cfg = small_config()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FEAT_DIM = "build_mip_backbone", 160
    cfg.MODEL.HEADS.NAME = "IdentityHead"
    cfg.MODEL.LOSSES.NAME = ("identity",)
    stage1 = VIBaseline(cfg).eval()
    stage1.load_state_dict(identity_head_state(trained.state_dict()))
    images, cameras = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8), torch.tensor([3, 6])
    with torch.no_grad():
        expected = trained.encode_images(images, Modality.IR, cameras)
        assert torch.equal(stage1.encode_images(images, Modality.IR, cameras), expected)
