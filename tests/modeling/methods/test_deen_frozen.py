"""DEEN as the frozen visual part of TVI-LFM."""

import pytest
import torch
from test_method_models import batch_of, model_of
from tiny_runs import ROOT

from tvilfm_plugin.checkpoints.released_mip import as_stage1
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.methods.deen import stacked

CONFIGS = ROOT / "projects"


@pytest.mark.parametrize("dataset", ["sysu", "regdb"])
def test_a_step_on_deens_weights(dataset):
    """The joined neck and classifier say what DEEN's say, its visual part does not move, and text does."""
    _, deen = model_of(CONFIGS / "DEEN" / "configs" / f"{dataset}.yml")
    cfg, model = model_of(CONFIGS / "TVILFM" / "configs" / f"{dataset}_deen.yml")
    joined = as_stage1(deen.state_dict())
    lacking, unexpected = model.load_state_dict(joined, strict=False)
    assert not unexpected and all(name.startswith("text.") for name in lacking)
    images = torch.randint(0, 256, (2, 3, 64, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    deen.eval(), model.eval()
    with torch.no_grad():
        raw = model.encode_images(images, Modality.IR)
        after = model.heads.neck(raw)
        assert torch.allclose(stacked(after), deen.heads.bn(stacked(raw)), atol=1e-5)
        each = deen.heads(raw)[1].chunk(3)
        assert torch.allclose(model.heads(raw)[1], sum(each) / 3, atol=1e-5)
    batch = batch_of(cfg, ("rgb", "rgb_aug", "ir"))
    losses = model.train()(batch | {"ir_tokens": batch["rgb_tokens"]})
    sum(losses.values()).backward()
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"text", "heads"}
