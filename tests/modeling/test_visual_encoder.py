import golden_inputs as inputs
import numpy as np
import pytest
import torch
from fastreid.layers.pooling import GeneralizedMeanPoolingP
from oracles_modeling import erase_and_mix, golden, small_config, small_resnet_by_hand
from torch import nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.backbones import build_visual_encoder
from tvilfm_plugin.modeling.dual_stream import DualStream
from tvilfm_plugin.modeling.visual_encoder import DualStreamEncoder, VisualEncoder

RGB, IR = Modality.RGB, Modality.IR
GEM = golden("gem")


@pytest.mark.parametrize("case", sorted({key.rsplit("/", 1)[0] for key in GEM.files}))
def test_the_hosts_gem_meets_the_golden(case):
    kind, p = case.split("/p")
    pool = GeneralizedMeanPoolingP()
    assert pool.p.item() == 3 and pool.eps == 1e-6
    nn.init.constant_(pool.p, float(p))
    out = pool(torch.from_numpy(inputs.gem_input(kind)))
    assert np.allclose(out.detach(), GEM[f"{case}/out"], rtol=1e-5)
    (out * torch.from_numpy(inputs.gem_output_weights(tuple(out.shape)))).sum().backward()
    assert np.allclose(pool.p.grad, GEM[f"{case}/grad_p"], rtol=1e-4, atol=1e-5)


def pixels(seed=0, n=2):
    return torch.randint(0, 256, (n, 3, 32, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def encoder(*overrides):
    torch.manual_seed(0)
    return build_visual_encoder(small_config("VIBaseline", "", *overrides)).eval()


def test_what_it_declares():
    visual = encoder()
    assert isinstance(visual, VisualEncoder) and visual.dim == 32 and visual.image_size == (32, 16)
    assert not any(name.startswith("pixel") for name in visual.state_dict())


def test_normalise_takes_uint8_and_float_and_changes_neither():
    visual, image = encoder(), torch.from_numpy(inputs.images(3, 2, 32, 16)[0].transpose(0, 3, 1, 2).copy())
    expected = torch.from_numpy(inputs.images(3, 2, 32, 16)[1])
    for given in (image, image.float()):
        before = given.clone()
        assert torch.allclose(visual.normalise(given), expected, atol=2e-6)
        assert torch.equal(given, before)


def test_equals_the_twin_image_by_image():
    visual = encoder()
    rows = {RGB: pixels(0, 3), IR: pixels(1, 2)}
    ops = {IR: torch.tensor([[4, 2, 10, 6, 4, 99], [0, 0, 0, 0, 3, 99]])}
    state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    with torch.no_grad():
        ours = visual(rows, ops=ops)
        for m in rows:
            for n, normal in enumerate(visual.normalise(rows[m])):
                image = erase_and_mix(normal, ops[m][n]) if m in ops else normal
                assert torch.allclose(ours[m][n], small_resnet_by_hand(state, image, m.value), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 16])
@torch.no_grad()
def test_a_few_at_a_time_equal_all_at_once(at_once, monkeypatch):
    monkeypatch.setattr("tvilfm_plugin.modeling.visual_encoder.ROWS_AT_ONCE", at_once)
    visual, rows = encoder(), {RGB: pixels(0, 5), IR: pixels(1, 3)}
    ops = {IR: torch.tensor([[4, 2, 10, 6, 4], [0, 0, 0, 0, 3], [1, 1, 5, 5, 0]])}
    calls = []
    visual.register_forward_hook(lambda *_: calls.append(1))
    ours, whole = visual.encode(rows, ops=ops), visual(rows, ops=ops)
    assert len(calls) == 1 + {1: 8, 2: 5, 16: 2}[at_once]
    for m in rows:
        assert torch.allclose(ours[m], whole[m], rtol=1e-4, atol=1e-5)


def test_rows_that_see_each_other_are_encoded_at_once(monkeypatch):
    monkeypatch.setattr("tvilfm_plugin.modeling.visual_encoder.ROWS_AT_ONCE", 1)
    visual, rows = encoder().train(), {RGB: pixels(0, 5)}
    with torch.no_grad():
        assert torch.equal(visual.encode(rows)[RGB], visual(rows)[RGB]), "batch statistics"


class Vectors(nn.Module):
    """A base that pools itself, as a transformer does."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(3, 8)

    def forward(self, images):
        return self.patch(images.mean(dim=(2, 3)))


def test_vectors_are_not_pooled():
    visual = DualStreamEncoder(
        backbone=DualStream(Vectors(), stem=("patch",)), pool=GeneralizedMeanPoolingP(), dim=8, image_size=(32, 16),
        pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3,
    )  # fmt: skip
    out = visual({IR: pixels()})[IR]
    assert out.shape == (2, 8) and out.min() < 0


def test_a_wrong_width_is_named():
    visual = encoder()
    visual.dim = 48
    with pytest.raises(ValueError, match="FEAT_DIM says 48"):
        visual({RGB: pixels()})
