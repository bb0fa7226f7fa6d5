"""A narrow ResNet for benchmarks that must run on a CPU: fast-reid's blocks and module names, free width and depth."""

import math
from collections.abc import Sequence

from fastreid.layers import get_norm
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.resnet import BasicBlock
from torch import Tensor, nn
from yacs.config import CfgNode

from tvilfm_plugin.files.weights import read_tensors


class SmallResNet(nn.Module):
    """conv1, bn1, relu, maxpool, then four stages of basic blocks, each twice as wide as the one before."""

    def __init__(self, *, width: int, blocks: Sequence[int], last_stride: int, norm: str = "BN") -> None:
        """`width` of the first stage, four numbers of basic blocks, stride of the fourth stage (1, 2), fast-reid's norm."""
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(f"MODEL.BACKBONE.SMALL_BLOCKS must be four positive numbers, not {tuple(blocks)}.")
        self.channels = 8 * width
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = get_norm(norm, width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.layer1 = _stage(width, width, blocks[0], 1, norm)
        self.layer2 = _stage(width, 2 * width, blocks[1], 2, norm)
        self.layer3 = _stage(2 * width, 4 * width, blocks[2], 2, norm)
        self.layer4 = _stage(4 * width, 8 * width, blocks[3], last_stride, norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 8 * width, h, w)."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(maps))))


def _stage(inputs: int, outputs: int, blocks: int, stride: int, norm: str) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), get_norm(norm, outputs))
    first = BasicBlock(inputs, outputs, norm, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, norm) for _ in range(blocks - 1)))


@BACKBONE_REGISTRY.register()
def build_small_resnet_backbone(cfg: CfgNode) -> SmallResNet:
    """A `SmallResNet` of MODEL.BACKBONE.SMALL_WIDTH and SMALL_BLOCKS; PRETRAIN_PATH is its own state dict."""
    backbone = cfg.MODEL.BACKBONE
    if backbone.FEAT_DIM != 8 * backbone.SMALL_WIDTH:
        raise ValueError(
            f"build_small_resnet_backbone of SMALL_WIDTH {backbone.SMALL_WIDTH} gives {8 * backbone.SMALL_WIDTH} "
            f"channels, but MODEL.BACKBONE.FEAT_DIM is {backbone.FEAT_DIM}. Set FEAT_DIM to 8 * SMALL_WIDTH."
        )
    model = SmallResNet(
        width=backbone.SMALL_WIDTH, blocks=backbone.SMALL_BLOCKS, last_stride=backbone.LAST_STRIDE, norm=backbone.NORM
    )
    if backbone.PRETRAIN and backbone.PRETRAIN_PATH:
        model.load_state_dict(read_tensors(backbone.PRETRAIN_PATH))
    return model
