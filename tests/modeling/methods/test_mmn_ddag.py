"""MMN and DDAG at full size against the authors' numbers."""

import golden_inputs_baselines as inputs
import pytest
import torch
import torch.nn.functional as F
from golden_parts import (
    assert_close,
    assert_rows,
    assert_step,
    doubled,
    fill,
    modalities,
    one_image,
    resnet50,
    train_setting,
    trunk_key,
)  # fmt: skip

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.losses import hard_triplet, identity_loss
from tvilfm_plugin.modeling.methods.ddag import PartHead, graph_weight
from tvilfm_plugin.modeling.methods.mmn import (
    MiddleImages,
    Projection,
    StripeHeads,
    middle_distance,
    pair_triplet,
)  # fmt: skip
from tvilfm_plugin.modeling.methods.stripes import Stripes

FORWARD = inputs.golden("forward.npz")
STEPS = inputs.golden("train_step.json")
RGB, IR = Modality.RGB, Modality.IR


def middle_key(name):
    for ours, theirs in (("encoders.rgb.", "1"), ("encoders.ir.", "2")):
        if name.startswith(ours):
            part, kind = name.removeprefix(ours).split(".")
            return f"{ {'encode': 'encode', 'fc': 'fc', 'bn': 'bn'}[part] }{theirs}.{kind}"
    return name


def stripe_key(name):
    part, number, kind = name.split(".")
    return f"{ {'necks': 'bottleneck', 'classifier': 'classifier'}[part] }{int(number) + 1}.{kind}"


def projection_key(name):
    number, kind = name.split(".")
    return f"dcl.fc1.0.{kind}" if number == "0" else f"dcl.fc2.{int(number) - 1}.{kind}"


def part_key(name):
    name = name.replace("classifier.graph.", "graph.").replace("classifier.identity.", "classifier.")
    if name.startswith("bn."):
        return f"bottleneck.{name[3:]}"
    if name.startswith("part_bn."):
        return f"wpa.bottleneck.{name[8:]}"
    if name.startswith("graph.attentions."):
        return f"attention_{name[17:]}"
    if name.startswith("graph.out."):
        return f"out_att.{name[10:]}"
    layers = (("parts.query", "wpa.fc1.0"), ("parts.key", "wpa.fc2"), ("parts.value", "wpa.fc3"), ("parts.", "wpa."))
    for ours, theirs in layers:
        if name.startswith(ours):
            return name.replace(ours, theirs)
    return name


def mmn(training=False):
    trunk, middle, heads = doubled(resnet50()), MiddleImages(), StripeHeads(dim=2048, num_classes=24)
    keys = [fill(trunk, trunk_key, training), fill(middle, middle_key, training), fill(heads, stripe_key, training)]
    return trunk, middle, heads, keys


def ddag(training=False):
    trunk, head = doubled(resnet50()), PartHead(dim=2048, num_classes=24, dropout=0.0)
    keys = [fill(trunk, trunk_key, training)]
    # The authors' linear layers over stripes are 1x1 convolutions, and so are the seeded weights' sizes.
    state = {}
    for name, value in head.state_dict().items():
        key, shape = part_key(name), tuple(value.shape)
        shape = (*shape, 1, 1) if key.startswith("wpa.fc") and key.endswith("weight") else shape
        state[name] = torch.from_numpy(inputs.weight(key, shape, training)).reshape(value.shape)
    head.load_state_dict(state)
    return trunk, head, [*keys, {name: part_key(name) for name in state}]


@torch.no_grad()
def test_mmn_forward():
    trunk, middle, heads, _ = mmn()
    trunk.eval(), middle.eval(), heads.eval()
    for name in ("rgb", "ir"):
        image, count = one_image("m", name)
        pairs = middle.beside(modalities(**{name: image}))
        raw = torch.cat(Stripes(4, cut="equal")(trunk(pairs)[Modality(name)]).chunk(2), dim=1)
        key = f"mmn/m/{name}"
        assert_close(pairs[Modality(name)][1:].mean(dim=(2, 3)), FORWARD[f"{key}/middle_b0_mean_hw"])
        assert_close(pairs[Modality(name)][1, 0, 0], FORWARD[f"{key}/middle_b0_c0_row0"])
        assert_rows(torch.cat(heads.units(raw)), FORWARD, f"{key}/unit_after_bn", count)
        before = torch.cat([F.normalize(half, dim=1) for half in raw.chunk(2, dim=1)])
        assert_rows(before, FORWARD, f"{key}/unit_before_bn", count)


def test_packed_rows_of_mmn_rank_by_the_sum_of_four():
    heads = StripeHeads(dim=8, num_classes=3).eval()
    raw = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    query, gallery = heads.pack(raw[:2], IR), heads.pack(raw[2:], RGB)
    q, g = heads.units(raw[:2]), heads.units(raw[2:])
    four = sum(a @ b.T for a in q for b in g)
    assert torch.allclose(F.normalize(query, dim=1) @ F.normalize(gallery, dim=1).T, four / 4, atol=1e-6)


def test_stripes_that_do_not_cut_are_refused():
    assert Stripes(4, cut="equal")(torch.ones(1, 2, 18, 3)).shape == (1, 8)
    with pytest.raises(ValueError, match="5 rows does not cut into 4"):
        Stripes(4, cut="equal")(torch.ones(1, 2, 5, 3))
    with pytest.raises(ValueError, match="equal or adaptive"):
        Stripes(4, cut="other")


def test_step_of_mmn():
    trunk, middle, heads, keys = mmn(training=True)
    projection = Projection(2048)
    fill(projection, projection_key, True)
    batch = train_setting("e", trunk, middle, heads, projection)
    maps = trunk(middle.beside({RGB: batch["rgb"], IR: batch["ir"]}))
    raw = torch.cat([Stripes(4, cut="equal")(maps[m]) for m in (RGB, IR)])
    pids = batch["pids"]
    stripes = [rows.chunk(4) for rows in raw.chunk(4, dim=1)]
    losses = {
        "id": torch.stack([identity_loss(rows, pids.repeat(4)) for rows in heads(raw)]).mean(),
        "triplet": torch.stack([pair_triplet(*blocks, pids) for blocks in stripes]).mean(),
        "dcl": 0.2 * torch.stack([middle_distance(projection, b[1], b[3]) for b in stripes]).mean(),
    }
    modules = list(zip((trunk, middle, heads), keys, strict=True))
    assert_step(STEPS["mmn/e"], modules, losses, ("bottleneck", "classifier"))


@torch.no_grad()
def test_ddag_forward():
    trunk, head, _ = ddag()
    trunk.eval(), head.eval()
    for name in ("rgb", "ir"):
        image, count = one_image("a", name)
        raw = Stripes(3, whole=True)(trunk(modalities(**{name: image}))[Modality(name)])
        key = f"ddag/a/{name}"
        assert_rows(raw[:, :2048], FORWARD, f"{key}/pooled", count)
        assert_rows(F.normalize(head.bn(raw[:, :2048]), dim=1), FORWARD, f"{key}/unit_after_bn", count)
        assert_rows(head.pack(raw), FORWARD, f"{key}/unit_parts", count)


def test_step_of_ddag():
    trunk, head, keys = ddag(training=True)
    batch = train_setting("a", trunk, head)
    maps = trunk({RGB: batch["rgb"], IR: batch["ir"]})
    raw = torch.cat([Stripes(3, whole=True)(maps[m]) for m in (RGB, IR)])
    pids = batch["pids"].repeat(2)
    feature, logits, part_logits = head(raw)
    losses = {
        "id": identity_loss(logits, pids),
        "triplet": hard_triplet(feature, pids),
        "part": identity_loss(part_logits, pids),
        "graph": 0.5 * F.nll_loss(head.graph(feature, pids), pids),
    }
    fast = ("bottleneck", "classifier", "wpa", "attention", "out_att")
    assert_step(STEPS["ddag/a"], list(zip((trunk, head), keys, strict=True)), losses, fast)


def test_graph_weight_starts_with_the_second_epoch():
    assert graph_weight(torch.tensor([-1.0, 0.0, 3.0])).tolist() == [0.0, 1.0, 0.25]
