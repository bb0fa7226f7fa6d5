import pytest
import torch
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.resnet import BasicBlock, ResNet
from oracles_modeling import small_config

from tvilfm_plugin.modeling.small_resnet import SmallResNet


def test_at_full_width_it_is_the_hosts_resnet18():
    torch.manual_seed(0)
    host = ResNet(1, "BN", False, False, False, BasicBlock, [2, 2, 2, 2], [0, 0, 0, 0]).eval()
    ours = SmallResNet(width=64, blocks=(2, 2, 2, 2), last_stride=1).eval()
    ours.load_state_dict(host.state_dict())
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(ours(images), host(images))


@pytest.mark.parametrize(("stride", "shape"), [(1, (6, 3)), (2, (3, 2))])
def test_shapes(stride, shape):
    model = SmallResNet(width=4, blocks=(1, 2, 1, 1), last_stride=stride).eval()
    assert model(torch.randn(2, 3, 96, 48)).shape == (2, 32, *shape)


def test_config():
    build = BACKBONE_REGISTRY.get("build_small_resnet_backbone")
    assert build(small_config()).channels == 32
    with pytest.raises(ValueError, match="FEAT_DIM is 64"):
        build(small_config("VIBaseline", "", "MODEL.BACKBONE.FEAT_DIM", 64))
    with pytest.raises(ValueError, match="four positive"):
        build(small_config("VIBaseline", "", "MODEL.BACKBONE.SMALL_BLOCKS", (1, 1)))
