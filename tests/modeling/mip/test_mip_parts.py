import golden_inputs_mip as inputs
import pytest
import torch

from tvilfm_plugin.modeling.mip.parts import jigsaw_order, jigsaw_parts
from tvilfm_plugin.modeling.mip.prompts import prompt_bound
from tvilfm_plugin.modeling.mip.vit import TokenEmbedding, patch_grid

GOLDEN = inputs.golden("jpm.json")


@pytest.mark.parametrize("patches", GOLDEN)
def test_jigsaw(patches: str) -> None:
    expected = GOLDEN[patches]
    order, parts = jigsaw_order(int(patches)), jigsaw_parts(int(patches))
    assert order == expected["order"]
    assert parts == expected["parts"]
    assert {len(part) for part in parts} == {expected["part_length"]}
    assert order[sum(map(len, parts)) :] == expected["unused"]


def test_jigsaw_of_too_few_patches() -> None:
    with pytest.raises(ValueError, match="too few for 4 parts"):
        jigsaw_parts(3)
    with pytest.raises(ValueError, match="cut in 3 pieces"):
        jigsaw_order(10, groups=3)


def test_token_counts() -> None:
    assert patch_grid((256, 128), 16, 12) == (21, 10)
    assert patch_grid((256, 128), 16, 16) == (16, 8)
    with pytest.raises(ValueError, match="hold no patch"):
        patch_grid((8, 8), 16, 12)


def test_prompt_bound() -> None:
    assert prompt_bound(20, 16, 768) == pytest.approx(1.25)


def test_camera_table() -> None:
    """Added to every token, the class token included; the mean of all cameras where the camera is unknown."""
    torch.manual_seed(0)
    embedding = TokenEmbedding(image_size=(16, 8), patch=4, stride=4, dim=6, cameras=3)
    images = torch.randn(2, 3, 16, 8)
    with torch.no_grad():
        known = embedding(images, torch.tensor([0, 2]))
        other = embedding(images, torch.tensor([1, 2]))
        difference = 3.0 * (embedding.camera[1] - embedding.camera[0])
        assert torch.allclose(other[0] - known[0], difference.expand(9, -1), atol=1e-6)
        assert torch.equal(other[1], known[1])
        unknown = embedding(images)
        mean = sum(embedding(images, torch.tensor([c, c])) for c in range(3)) / 3
        assert torch.allclose(unknown, mean, atol=1e-6)
    alone = TokenEmbedding(image_size=(16, 8), patch=4, stride=4, dim=6, cameras=1)
    assert alone.camera is None
    with pytest.raises(ValueError, match="must be equal"):
        embedding(torch.randn(1, 3, 32, 8))
