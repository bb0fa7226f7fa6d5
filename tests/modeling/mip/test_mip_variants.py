"""Every variant at a small size against the literal twin: prompts, heads, depth, query; and what is built for it."""

import golden_inputs_mip as inputs
import oracles_mip as oracle
import pytest
import torch
from mip_models import DETERMINISTIC, RELEASED, SMALL, deviation, mip_config, small_config
from released_names import to_official
from torch import Tensor

from tvilfm_plugin.modeling.mip.encoder import MIPEncoder
from tvilfm_plugin.modeling.mip.generator import PromptFusion
from tvilfm_plugin.modeling.mip.mip import MIP

VARIANTS = {
    "released": {"BLOCKS": 2, "QUERY": "zeros", "IAEL_WEIGHT": 0.0},
    "paper": {},
    "paper, own reader": {"IAEL_READER": "block"},
    "IAEL on equal prompts": {"QUERY": "zeros"},
    "MPL only": {"INSTANCE_PROMPTS": 0},
    "IPG only": {"MODALITY_PROMPTS": 0},
    "no prompts": {"INSTANCE_PROMPTS": 0, "MODALITY_PROMPTS": 0},
    "no prompts, released depth": {"INSTANCE_PROMPTS": 0, "MODALITY_PROMPTS": 0, "BLOCKS": 2},
}
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
CAMERAS = torch.tensor([2, 5, 2, 5, 0, 1, 3, 4])
PIDS = torch.tensor([0, 0, 3, 3, 0, 0, 3, 3])


def random_model(**mip: object) -> MIP:
    """A small model in which no tensor is left at a value that could hide a mistake."""
    torch.manual_seed(0)
    model = MIP(small_config(**{**DETERMINISTIC, **mip}))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                gain = value.ndim == 1 and "bias" not in name
                value.copy_(torch.rand_like(value) + 0.5 if gain else 0.2 * torch.randn_like(value))
    return model.train()


def images() -> Tensor:
    return torch.randn(8, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def literal(model: MIP, layers: int) -> tuple[Tensor, list[Tensor]]:
    visual = model.visual
    generator = visual.instance_prompts
    kind = "none" if generator is None else "zeros" if generator.query is None else "learned"
    return oracle.forward(
        to_official(model.state_dict()),
        images(),
        LABELS,
        CAMERAS,
        layers=layers,
        heads=4,
        stride=SMALL["STRIDE"],
        modality_prompts=visual.modality_prompts is not None,
        instance_prompts=kind,
        count=SMALL["INSTANCE_PROMPTS"],
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_equals_the_literal_twin(name: str) -> None:
    model = random_model(**VARIANTS[name])
    layers = len(model.visual.blocks)
    assert layers == VARIANTS[name].get("BLOCKS", 3)
    described = model.visual.describe(images(), LABELS, CAMERAS + 1)
    features, prompts = literal(model, layers)
    assert deviation(described.features, features) < 1e-5
    assert len(described.prompts) == len(prompts)
    for found, expected in zip(described.prompts, prompts, strict=True):
        assert deviation(found, expected) < 1e-5
    if model.heads.prompt_necks:
        state = to_official(model.state_dict())
        expected_logits = oracle.prompt_logits(state, prompts, 4, model.heads.prompt_reader is not None)
        for found, expected in zip(model.heads.prompt_logits(described.prompts), expected_logits, strict=True):
            assert deviation(found, expected) < 1e-4


@pytest.mark.parametrize("name", [*VARIANTS, "fusion"])
def test_only_what_is_used_is_built(name: str) -> None:
    """One step gives every trainable tensor a finite gradient that is not zero (where it is not zero by nature)."""
    model = random_model(**VARIANTS.get(name, {"INSTANCE_TYPE": "fusion"}))
    model.set_epoch(9)
    described = model.visual.describe(images(), LABELS, CAMERAS + 1)
    losses = model.evaluate_losses(described, PIDS, LABELS)
    iael = model.heads.prompt_necks and "loss_iael" in losses
    assert bool(iael) == (model.visual.instance_prompts is not None and name != "released")
    sum(losses.values()).backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter_name.startswith("heads.necks.") and parameter_name.endswith("bias")
            continue
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        # A common shift of all vectors cancels in distances and in batch norm, which also ignores the reader's gain.
        zero = parameter_name.endswith(("branch.norm.bias", "local_branch.reader.norm.bias")) or parameter_name.startswith(
            "heads.prompt_reader.reader.norm."
        )
        if not zero:
            assert parameter.grad.abs().max() > 0, parameter_name


def test_every_row_of_every_table_is_used() -> None:
    """No dead slices: each layer's library and bank get a gradient, each camera and position, too."""
    for kind in ("generator", "fusion"):
        model = random_model(INSTANCE_TYPE=kind)
        described = model.visual.describe(images(), LABELS, CAMERAS + 1)
        sum(model.evaluate_losses(described, PIDS, LABELS).values()).backward()
        visual = model.visual
        grads = [visual.modality_prompts.library.grad.flatten(0, 2), visual.embedding.position.grad[0]]
        grads.append(visual.embedding.camera.grad[:, 0])
        if kind == "fusion":
            grads += [visual.instance_prompts.bank.grad.flatten(0, 1), visual.instance_prompts.mixers.grad.flatten(0, 1)]
        for grad in grads:
            assert (grad.abs().amax(dim=1) > 0).all()


def test_fusion_type_equals_the_literal_twin() -> None:
    for temperature in (0.0, 0.3):
        model = random_model(INSTANCE_TYPE="fusion", TEMPERATURE=temperature)
        fusion = model.visual.instance_prompts
        assert isinstance(fusion, PromptFusion)
        tokens = torch.randn(3, 51, 32, generator=torch.Generator().manual_seed(2))
        for layer in range(3):
            expected = oracle.fusion_prompts(
                tokens,
                layer,
                fusion.bank[:, layer],
                fusion.mixers[layer].unflatten(0, (5, 6)),
                fusion.projection.weight,
                fusion.projection.bias,
                temperature,
            )
            assert deviation(fusion(layer, tokens), expected) < 1e-5


def test_learned_query_makes_different_prompts_and_zeros_equal_ones() -> None:
    for query, distinct in (("zeros", False), ("learned", True)):
        prompts = random_model(QUERY=query).visual.describe(images(), LABELS, CAMERAS + 1).prompts
        for of_layer in prompts:
            assert bool((of_layer != of_layer[:, :1]).any()) is distinct
            assert (of_layer[0] != of_layer[1]).any()


def test_modality_label_matters_and_order_does_not() -> None:
    model = random_model().eval()
    straight = model.visual.describe(images(), LABELS, CAMERAS + 1).features
    swapped = model.visual.describe(images(), 1 - LABELS, CAMERAS + 1).features
    order = torch.tensor([3, 7, 0, 1, 6, 2, 5, 4])
    permuted = model.visual.describe(images()[order], LABELS[order], CAMERAS[order] + 1).features
    assert deviation(swapped, straight) > 1e-2
    assert deviation(permuted, straight[order]) < 1e-5


def test_parameter_counts_of_full_size_models() -> None:
    """The released configuration has what receives gradients in the authors' model: 114.44 M less 19.10 M, no dead slice."""
    with torch.device("meta"):
        released = MIP(mip_config(**RELEASED))
    unused = {name for name, values in inputs.golden("train_step.json")["a"]["grads"].items() if values is None}
    keys = inputs.golden("state_dict_keys.json")["keys"]
    trained = sum(
        int(torch.Size(v["shape"]).numel()) for k, v in keys.items() if v.get("param") and k not in unused and "b3." not in k
    )
    dead = 2 * 3 * 16 * 768
    frozen = 5 * 768
    assert sum(p.numel() for p in released.parameters()) == trained - dead + frozen
    assert sum(p.numel() for p in released.parameters() if p.requires_grad) == trained - dead


def test_released_and_paper_depth() -> None:
    with torch.device("meta"):
        paper = MIP(mip_config())
    assert isinstance(paper.visual, MIPEncoder)
    assert len(paper.visual.blocks) == 11 and len(paper.heads.prompt_necks) == 11
    assert paper.visual.embedding.grid == (21, 10)
    rates = [block.drop_path.p for block in paper.visual.blocks]
    assert rates == pytest.approx([0.1 * n / 11 for n in range(11)])
    assert paper.visual.global_branch.block.drop_path.p == pytest.approx(0.1)
    assert paper.visual.instance_prompts.block.drop_path.p == 0
