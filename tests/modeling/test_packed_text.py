import golden_inputs as inputs
import pytest
import torch
from oracles_modeling import random_encoder, small_config, write_tower


@pytest.fixture
def encoder(tmp_path):
    return random_encoder(write_tower(tmp_path)).train()


def outcome(encoder, tokens, pack):
    """Features, and the gradient of every parameter."""
    encoder.pack = pack
    encoder.zero_grad()
    features = encoder(tokens)
    (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
    return {"": features.detach()} | {name: p.grad.clone() for name, p in encoder.named_parameters()}


@pytest.mark.parametrize(("n", "at_once"), [(1, 32), (5, 32), (5, 2)])
def test_packed_equals_padded_in_value_and_gradient(encoder, n, at_once, monkeypatch):
    assert encoder.pack
    monkeypatch.setattr("tvilfm_plugin.modeling.text_encoder.CAPTIONS_AT_ONCE", at_once)
    tokens = torch.from_numpy(inputs.tokens(3, n))
    padded, packed = outcome(encoder, tokens, False), outcome(encoder, tokens, True)
    for name, value in padded.items():
        assert torch.allclose(value, packed[name], rtol=1e-5, atol=1e-6 * float(value.abs().max())), name


def test_what_lies_behind_the_end_is_not_read(encoder):
    tokens = torch.from_numpy(inputs.tokens(3, 5))
    noisy = tokens.clone()
    for row, end in zip(noisy, encoder.end_of_text(tokens).tolist(), strict=True):
        row[end + 1 :] = 7
    with torch.no_grad():
        assert torch.equal(encoder(tokens), encoder(noisy))


def test_attention_in_reduced_precision_equals_that_in_float32():
    from tvilfm_plugin.modeling.packed_text import _causal_attention

    outcomes = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        heads = [torch.randn(2, 3, 9, 8).to(dtype).requires_grad_() for _ in range(3)]
        mixed = _causal_attention(*heads)
        assert mixed.dtype == dtype
        (mixed.float() * torch.linspace(-1, 1, mixed.numel()).view_as(mixed)).sum().backward()
        outcomes.append([mixed, *(tensor.grad for tensor in heads)])
    for exact, reduced in zip(*outcomes, strict=True):
        assert torch.allclose(exact.detach(), reduced.float(), atol=0.02 * float(exact.detach().abs().max()))


def test_other_blocks_are_not_packed(encoder, tmp_path):
    from tvilfm_plugin.data.open_clip_files.transformer import Transformer

    from tvilfm_plugin.modeling.packed_text import can_pack

    transformer = Transformer(16, 1, 2)
    assert can_pack(transformer)
    transformer.grad_checkpointing = True
    assert not can_pack(transformer)
    other = Transformer(16, 1, 2, block_type="custom", qk_norm=True)
    assert not can_pack(other)


def test_the_switch(tmp_path):
    from fastreid.modeling.meta_arch import build_model

    for value in (True, False):
        cfg = small_config("TVILFM", write_tower(tmp_path), "MODEL.TEXT.PACK", value)
        assert build_model(cfg).text.pack is value
