import golden_inputs as inputs
import pytest
import torch
from oracles_modeling import golden

from tvilfm_plugin.modeling.fusion import Add, FilteredAdd


def test_golden_filtered_add():
    ir, text, ir_text = (torch.from_numpy(a) for a in inputs.sff_input())
    assert torch.allclose(
        FilteredAdd(dim=2048)(ir, text, ir_text), torch.from_numpy(golden("sff")["fusion"]), rtol=1e-6, atol=1e-6
    )


def test_filtered_add_trains_through_both_texts():
    ir, text, ir_text = (torch.randn(3, 8, requires_grad=True) for _ in range(3))
    FilteredAdd(dim=8)(ir, text, ir_text).sum().backward()
    assert torch.equal(text.grad, torch.ones(3, 8)) and torch.equal(ir_text.grad, -torch.ones(3, 8))


def test_text_equal_to_the_filter_leaves_the_infrared_feature():
    ir, text = torch.randn(3, 8), torch.randn(3, 8)
    assert torch.allclose(FilteredAdd(dim=8)(ir, text, text), ir, atol=1e-6)


def test_add_needs_no_filter():
    ir, text = torch.randn(3, 8), torch.randn(3, 8)
    assert not Add.filters and torch.equal(Add(dim=8)(ir, text), ir + text)
    with pytest.raises(ValueError, match="ir_tokens"):
        FilteredAdd(dim=8)(ir, text, None)
