import pytest
import torch
import torch.nn.functional as F
from fastreid.modeling.heads import build_heads
from oracles_modeling import small_config
from torch import nn

from tvilfm_plugin.modeling.distributed import SyncBatchNorm
from tvilfm_plugin.modeling.identity_head import IdentityHead


def test_parts():
    torch.manual_seed(0)
    head = build_heads(small_config("VIBaseline", "", "MODEL.HEADS.NUM_CLASSES", 400))
    assert set(dict(head.named_parameters())) == {"neck.weight", "neck.bias", "classifier.weight"}
    assert head.neck.bias.requires_grad
    assert head.classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)


def test_neck_before_norm_and_classifier():
    head = IdentityHead(dim=8, num_classes=5).eval()
    nn.init.normal_(head.neck.running_mean)
    raw = torch.randn(4, 8)
    unit, logits = head(raw)
    after = head.neck(raw)
    assert torch.equal(unit, F.normalize(after)) and torch.equal(head.embed(raw), unit)
    assert torch.equal(logits, after @ head.classifier.weight.T)


def test_config():
    assert isinstance(build_heads(small_config("VIBaseline", "", "MODEL.HEADS.NORM", "syncBN")).neck, SyncBatchNorm)
    with pytest.raises(ValueError, match="BN or syncBN"):
        build_heads(small_config("VIBaseline", "", "MODEL.HEADS.NORM", "GN"))
    with pytest.raises(ValueError, match="EMBEDDING_DIM is 16"):
        build_heads(small_config("VIBaseline", "", "MODEL.HEADS.EMBEDDING_DIM", 16))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_without_classes_it_embeds():
    head = IdentityHead(dim=8, num_classes=0).eval()
    assert head.embed(torch.randn(2, 8)).norm(dim=1).allclose(torch.ones(2))
