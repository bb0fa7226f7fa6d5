"""AGW, CAJ and DEEN at full size against the authors' numbers."""

import gc

import golden_inputs_baselines as inputs
import pytest
import torch
import torch.nn.functional as F
from fastreid.layers.pooling import GeneralizedMeanPooling
from golden_parts import (
    assert_close,
    assert_rows,
    assert_step,
    doubled,
    fill,
    head_key,
    modalities,
    one_image,
    resnet50,
    train_setting,
    trunk_key,
)  # fmt: skip

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.losses import hard_triplet, identity_loss, weighted_triplet
from tvilfm_plugin.modeling.methods.deen import BranchHead, DEENTrunk, flip_similarity, stacked
from tvilfm_plugin.modeling.methods.losses import centre_pair, orthogonality, squared_difference

FORWARD = inputs.golden("forward.npz")
STEPS = inputs.golden("train_step.json")


@pytest.fixture(autouse=True)
def tidy():
    yield
    gc.collect()


def mean(maps):
    return maps.mean(dim=(2, 3))


def gem(maps):
    return GeneralizedMeanPooling()(maps).flatten(1)


def build(name, training=False):
    """Trunk, head, and {our name: their key} of both."""
    if name in ("agw", "caj"):
        trunk, head = doubled(resnet50(non_local=True)), BranchHead(dim=2048, num_classes=24, branches=1)
    else:
        reduced = name == "deen_regdb"
        trunk = doubled(DEENTrunk(resnet50(), reduced=reduced))
        head = BranchHead(dim=3 * (1024 if reduced else 2048), num_classes=24)
    return trunk, head, fill(trunk, trunk_key, training), fill(head, head_key, training)


@torch.no_grad()
@pytest.mark.parametrize(("name", "case"), [("agw", "a"), ("deen", "a"), ("deen_regdb", "b")])
def test_forward(name, case):
    trunk, head, _, _ = build(name)
    trunk.eval(), head.eval()
    seen = {}
    if name != "agw":
        parts = {"mfa1": trunk.base.mfa[0], "mfa2": trunk.base.mfa[1], "dee": trunk.base.dee}
        for part, module in parts.items():
            module.register_forward_hook(lambda m, i, out, part=part: seen.update({part: out}))
    for modality in ("rgb", "ir"):
        image, count = one_image(case, modality)
        maps = trunk(modalities(**{modality: image}))
        raw = (gem if name == "agw" else mean)(maps[Modality(modality)])
        rows = stacked(raw, head.branches)
        key = f"{name}/{case}/{modality}"
        assert_rows(rows, FORWARD, f"{key}/pooled", count)
        assert_rows(F.normalize(rows, dim=1), FORWARD, f"{key}/unit_before_bn", count)
        assert_rows(F.normalize(head.bn(rows), dim=1), FORWARD, f"{key}/unit_after_bn", count)
        for part, out in seen.items():
            if f"{key}/{part}_b0_c0" in FORWARD:
                assert_close(out[0, 0], FORWARD[f"{key}/{part}_b0_c0"])
                assert_close(out.mean(dim=(2, 3))[:, :256], FORWARD[f"{key}/{part}_mean_c"][::count])


@torch.no_grad()
@pytest.mark.parametrize("name", ["agw", "deen_regdb"])
def test_similarity(name):
    trunk, head, _, _ = build(name)
    trunk.eval(), head.eval()
    rgb_seed, ir_seed, count, height, width, _ = inputs.SIMILARITY["s"]
    raw = {}
    for modality, seed in (("rgb", rgb_seed), ("ir", ir_seed)):
        images = inputs.normalised(inputs.images(seed, count, height, width))[:1]
        for mirror in (False, True):
            maps = trunk(modalities(**{modality: images.flip(3) if mirror else images}))[Modality(modality)]
            raw[modality, mirror] = (gem if name == "agw" else mean)(maps)
    units = {k: head.units(v) for k, v in raw.items()}
    if name == "agw":
        for n, what in enumerate(("before_bn", "after_bn")):
            plain = units["ir", False][:, n] @ units["rgb", False][:, n].T
            assert_close(plain, FORWARD[f"similarity/agw/s/{what}"][:1, :1])
            both = [F.normalize(units[m, False][:, n] + units[m, True][:, n], dim=1) for m in ("ir", "rgb")]
            assert_close(both[0] @ both[1].T, FORWARD[f"similarity/caj/s/{what}"][:1, :1])
        return
    six = flip_similarity(units["ir", False], units["ir", True], units["rgb", False], units["rgb", True])
    assert_close(six, FORWARD[f"similarity/{name}/s/six"][:, :1, :1])
    assert_close(six.sum(dim=0), FORWARD[f"similarity/{name}/s/sum"][:1, :1])
    packed = head.pack(raw["ir", False]) @ head.pack(raw["rgb", False]).T
    assert_close(packed, torch.einsum("qbd,gbd->qg", units["ir", False], units["rgb", False]) / 6)


@pytest.mark.parametrize("name", ["agw", "caj"])
def test_step_of_agw_and_caj(name):
    trunk, head, trunk_keys, head_keys = build(name, training=True)
    exact = name == "caj"
    batch = train_setting("a", trunk, head, exact=exact)
    views = ["rgb", "rgb_aug"] if name == "caj" else ["rgb"]
    maps = trunk(modalities(rgb=torch.cat([batch[v] for v in views]), ir=batch["ir"]))
    # fast-reid clamps where the authors add; in float64 the difference shows.
    raw = torch.cat([((m**3).mean(dim=(2, 3)) + 1e-12) ** (1 / 3) for m in maps.values()])
    _, logits = head(raw)
    pids = batch["pids"].repeat(len(views) + 1)
    metric = {"wrt": weighted_triplet(raw, pids)} if name == "agw" else {"adp": squared_difference(raw, pids)}
    losses = {"id": identity_loss(logits, pids), **metric}
    assert_step(STEPS[f"{name}/a"], [(trunk, trunk_keys), (head, head_keys)], losses, ("bottleneck", "classifier"), exact=exact)


@pytest.mark.parametrize("name", ["deen", "deen_regdb"])
def test_step_of_deen(name):
    trunk, head, trunk_keys, head_keys = build(name, training=True)
    exact = name == "deen_regdb"
    batch = train_setting("a", trunk, head, exact=exact)
    maps = trunk(modalities(rgb=batch["rgb"], ir=batch["ir"]))
    rows, logits = head(torch.cat([mean(m) for m in maps.values()]))
    pids = batch["pids"]
    (v, i), (v1, i1), (v2, i2) = (block.chunk(2) for block in rows.chunk(3))
    losses = {
        "id": identity_loss(logits, pids.repeat(6)),
        "triplet": hard_triplet(rows, pids.repeat(6)),
        "cpm": 0.8 * (centre_pair(v, i, v1, i1, pids) + centre_pair(v, i, v2, i2, pids)),
        "ort": 0.01 * orthogonality(*rows.chunk(3)[1:]),
    }
    assert_step(STEPS[f"{name}/a"], [(trunk, trunk_keys), (head, head_keys)], losses, ("bottleneck", "classifier"), exact=exact)
