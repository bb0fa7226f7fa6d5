"""YYDS at full size against the authors' numbers."""

import re

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
    head_key,
    modalities,
    one_image,
    resnet50,
    train_setting,
    trunk_key,
)  # fmt: skip
from torch import nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.losses import hard_triplet, identity_loss
from tvilfm_plugin.modeling.methods.deen import BranchHead, DEENTrunk, side_by_side
from tvilfm_plugin.modeling.methods.losses import centre_pair, orthogonality
from tvilfm_plugin.modeling.methods.text_losses import overlap_targets, text_alignment
from tvilfm_plugin.modeling.methods.yyds import (
    ColourFeature,
    JointHead,
    JointRelation,
    RobertaSentence,
    joint_losses,
    pack,
)  # fmt: skip

FORWARD = inputs.golden("forward.npz")
STEPS = inputs.golden("train_step.json")
RGB, IR = Modality.RGB, Modality.IR
STEMS = {"rgb": "visible_module.", "ir": "thermal_module."}
JOINT = {
    "visual_1.": "visual_conv_1.", "visual_2.": "visual_conv_2.", "text_1.": "textual_fc_1.", "text_2.": "textual_fc_2.",
    "joint.": "joint_embedding.conv.",
}  # fmt: skip


def joint_key(name):
    ours = next(prefix for prefix in JOINT if name.startswith(prefix))
    return f"joint_encoder.{JOINT[ours]}{name.removeprefix(ours)}"


def joint_head_key(name):
    return f"joint_{name.replace('neck.', 'bn.')}"


def text_key(name):
    return re.sub("^encoder", "text_encoder", name) if name.startswith("encoder") else f"text_{name}"


def colour_key(name):
    return name.replace("trunk.", "visible_2_text.base.") if name.startswith("trunk") else f"visible_{name}"


def roberta():
    transformers = pytest.importorskip("transformers")
    config = transformers.RobertaConfig(**inputs.ROBERTA, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return transformers.RobertaModel(config, add_pooling_layer=False)


class Parts(nn.Module):
    """Everything of YYDS, and {our name: their key}."""

    def __init__(self, reduced=False, training=False, logits="raw"):
        super().__init__()
        dim = 1024 if reduced else 2048
        base = resnet50()
        layers = [base.get_submodule(f"layer{n}") for n in range(1, 4 if reduced else 5)]
        self.trunk = doubled(DEENTrunk(resnet50(), reduced=reduced))
        self.head = BranchHead(dim=3 * dim, num_classes=24)
        trunk = nn.Sequential()
        for n, layer in enumerate(layers):
            trunk.add_module(f"layer{n + 1}", layer)
        self.colour = ColourFeature(trunk, dim, dim)
        self.text = RobertaSentence(roberta(), dim, masked=False)
        self.relation = JointRelation(dim)
        self.joint_head = JointHead(dim=2 * dim, num_classes=24, logits=logits)
        pairs = (
            (self.trunk, lambda name: trunk_key(name, STEMS)), (self.head, head_key), (self.colour, colour_key),
            (self.text, text_key), (self.relation, joint_key), (self.joint_head, joint_head_key),
        )  # fmt: skip
        self.keys = [(module, fill(module, key, training)) for module, key in pairs]

    def maps(self, images):
        """The branches' maps side by side per modality, and what the visible stem gives."""
        base, route = self.trunk.base, self.trunk.route
        counts = {m: len(rows) for m, rows in images.items()}
        route.enter(counts)
        stem = base.stem(torch.cat(list(images.values())))
        route.leave()
        sizes = list(counts.values())
        maps = dict(zip(counts, side_by_side(base.branches(stem)).split(sizes), strict=True))
        return maps, dict(zip(counts, stem.split(sizes), strict=True))


def mean(maps):
    return maps.mean(dim=(2, 3))


@torch.no_grad()
def test_forward():
    parts = Parts(reduced=True).eval()
    rows = {}
    for name in ("rgb", "ir"):
        image, count = one_image("b", name)
        maps, stem = parts.maps(modalities(**{name: image}))
        maps, stem = maps[Modality(name)], stem[Modality(name)]
        key = f"yyds_regdb/b/{name}"
        if name == "rgb":
            colour = parts.colour(stem)
            assert_rows(F.normalize(colour, dim=1), FORWARD, f"{key}/v2t_feat", count)
        else:
            ids, mask = inputs.tokens(inputs.EVAL["b"][1], count)
            colour = parts.text(ids, mask)[:1]
            assert_close(parts.text.words(ids, mask)[0, :, :64], FORWARD[f"{key}/text_words_b0_first64"])
            assert_rows(F.normalize(colour, dim=1), FORWARD, f"{key}/txt_feat", count)
        joint = parts.relation(maps, colour)
        assert_rows(joint, FORWARD, f"{key}/joint_raw", count)
        late = parts.relation.join(parts.relation.image_part(maps), colour)
        assert_close(late, joint)
        units = parts.head.units(mean(maps))
        assert_rows(units[0, 1::2], FORWARD, f"{key}/unit_after_bn", count)
        rows[name] = pack(units, colour, joint)
    similarity = (rows["ir"] * rows["rgb"]).sum()
    blocks = [rows["ir"][0], rows["rgb"][0]]
    cut = (*(1024,) * 7, 2048)
    each = [F.cosine_similarity(a, b, dim=0) for a, b in zip(*(row.split(cut) for row in blocks), strict=True)]
    assert similarity.item() == pytest.approx(sum(each).item(), rel=1e-5)


@pytest.mark.parametrize("branch", ["", "/amp_branch"])
def test_step(branch):
    """RegDB's form in float64: raw joint logits as published; unit features and a joint classifier with `--use_amp`."""
    unit = bool(branch)
    parts = Parts(reduced=True, training=True, logits="classifier" if unit else "raw")
    batch = train_setting("a", parts)
    parts.text.train()
    maps, stem = parts.maps({RGB: batch["rgb"], IR: batch["ir"]})
    rows, logits = parts.head(torch.cat([mean(maps[RGB]), mean(maps[IR])]))
    v2t, text = parts.colour(stem[RGB]), parts.text(batch["ids"], batch["mask"])
    # The modalities pass one after the other: each by its own batch statistics.
    joint = torch.cat([parts.relation(maps[RGB], v2t), parts.relation(maps[IR], text)])
    joint_logits = parts.joint_head(joint)
    if unit:
        rows, v2t, text, joint = (F.normalize(x, dim=1) for x in (rows, v2t, text, joint))
    pids = batch["pids"]
    (v, i), (v1, i1), (v2, i2) = (block.chunk(2) for block in rows.chunk(3))
    joint_id, joint_triplet = joint_losses(joint, joint_logits, pids.repeat(2))
    losses = {
        "id": identity_loss(logits, pids.repeat(6)),
        "triplet": hard_triplet(rows, pids.repeat(6)),
        "cpm": 0.8 * (centre_pair(v, i, v1, i1, pids) + centre_pair(v, i, v2, i2, pids)),
        "ort": 0.01 * orthogonality(*rows.chunk(3)[1:]),
        "text": text_alignment(v2t, text, pids, overlap_targets(inputs.COLOURS["a"], pids), overlap_everywhere=True),
        "joint_id": joint_id,
        "joint_triplet": joint_triplet,
    }
    fast = ("bottleneck", "classifier", "text_projection", "visible_2_text", "visible_projection")
    # The authors compute gradients of the frozen encoder and never use them.
    assert_step(STEPS[f"yyds_regdb/a{branch}"], parts.keys, losses, fast, skip=("text_encoder",))


def test_masked_mean_ignores_padding():
    text = RobertaSentence(roberta(), 8)
    ids, mask = inputs.tokens(1, 3)
    longer = torch.cat([ids, torch.ones(3, 5, dtype=torch.int64)], dim=1), torch.cat([mask, mask.new_zeros(3, 5)], dim=1)
    assert torch.allclose(text(ids, mask), text(*longer), atol=1e-5)
    assert not text.train().encoder.training


def test_wrong_logits():
    with pytest.raises(ValueError, match="classifier or raw"):
        JointHead(dim=4, num_classes=2, logits="other")
