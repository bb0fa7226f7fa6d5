import pytest
import torch
from mip_models import small_config

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.modeling.mip.readout import read_out


@pytest.mark.parametrize("prompted", [True, False])
def test_readout(prompted: bool) -> None:
    torch.manual_seed(0)
    mip = {} if prompted else {"MODALITY_PROMPTS": 0, "INSTANCE_PROMPTS": 0}
    model = MIP(small_config(**mip)).eval()
    images = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8)
    cameras = torch.tensor([3, 6])
    found = read_out(model.visual, images, Modality.IR, cameras)
    assert found.attention.shape == (2, 3, 10, 5)
    total = found.attention.sum(dim=(2, 3))
    assert (found.attention > 0).all() and (total < 1).all()

    # The first block, by hand.
    visual = model.visual
    with torch.no_grad():
        tokens = visual.embedding(visual.normalise(images), cameras - 1)
        context = [found.modality_prompts[0].expand(2, -1, -1), found.instance_prompts[:, 0]] if prompted else []
        seen = visual.blocks[0].norm1(torch.cat([tokens, *context], dim=1))
        query, key, _ = visual.blocks[0].attn.qkv(seen).unflatten(2, (3, 4, 8)).unbind(2)
        weights = torch.einsum("bhd,bthd->bht", query[:, 0], key).div(8**0.5).softmax(dim=2).mean(dim=1)
    assert torch.allclose(found.attention[:, 0].flatten(1), weights[:, 1:51], atol=1e-6)
    assert found.modality_prompts.shape == ((3, 3, 32) if prompted else (0,))
    assert found.instance_prompts.shape == ((2, 3, 5, 32) if prompted else (0,))
    assert not visual.blocks[0]._forward_pre_hooks
    with pytest.raises(RuntimeError, match="eval mode"):
        read_out(model.train().visual, images, Modality.IR, cameras)
