"""The six methods at full size, from their configs, against the authors' numbers.

TVILFM_EVERY_CASE=1 runs every model and case that the inputs define; without it, the smallest of each kind.
"""

import gc
import os

import golden_inputs_baselines as inputs
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_methods import CONFIGS, FORWARD, STEPS, assert_close, assert_rows, golden_model, train_model

from tvilfm_plugin.engine import param_groups
from tvilfm_plugin.evaluation.mer import Parts, batch_norm_affine, query_embeddings, unit_after
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.methods.deen import stacked

EVERY = os.environ.get("TVILFM_EVERY_CASE") == "1"
RGB, IR = Modality.RGB, Modality.IR
MODELS = [name for name in CONFIGS if "/" not in name]
FORWARDS = [(name, case) for name in MODELS for case in inputs.EVAL if name != "mmn" or inputs.EVAL[case][4] == 192]
FEW_FORWARDS = [("agw", "c"), ("deen_regdb", "d"), ("mmn", "m"), ("ddag", "c"), ("yyds_regdb", "d")]
SIMILAR = [(name, case) for name in MODELS for case in inputs.SIMILARITY if name != "ddag"]
TRAINS = [(name, case) for name in CONFIGS for case in inputs.TRAIN if (name == "mmn") == (case == "e")]
FEW_TRAINS = [(name, "a") for name in ("caj", "deen_regdb", "ddag", "yyds_regdb", "yyds_regdb/amp_branch")] + [("mmn", "e")]


@pytest.fixture(autouse=True)
def tidy():
    yield
    gc.collect()


def vectors(model, name, modality, images, ids):
    """What the reference numbers call the features of some images of one modality."""
    raw = model.visual({modality: images})[modality]
    head = model.heads
    if name in ("agw", "caj"):
        return {"pooled": raw, "unit_before_bn": F.normalize(raw, dim=1), "unit_after_bn": model.embed(raw)}
    if name == "mmn":
        before = torch.cat([F.normalize(half, dim=1) for half in raw.chunk(2, dim=1)])
        return {"unit_before_bn": before, "unit_after_bn": torch.cat(head.units(raw))}
    if name == "ddag":
        pooled = raw[:, :2048]
        return {"pooled": pooled, "unit_after_bn": F.normalize(head.bn(pooled), dim=1), "unit_parts": head.blocks(raw)}
    d = raw.shape[1] // 3 if name.startswith("deen") else head.dim
    rows = stacked(raw[:, : 3 * d])
    said = {"pooled": rows, "unit_before_bn": F.normalize(rows, dim=1), "unit_after_bn": F.normalize(head.bn(rows), dim=1)}
    if not name.startswith("yyds"):
        return said
    colour = head.colour(raw[:, 3 * d : 4 * d]) if modality is RGB else model.text(ids)
    said["v2t_feat" if modality is RGB else "txt_feat"] = F.normalize(colour, dim=1)
    if name != "yyds_v1":
        end = model.visual.relation.end
        mean, for_text = raw[:, 4 * d :].chunk(2, dim=1)
        said["joint_raw"] = end.join(raw[:, 4 * d :], colour)
        said["joint_feat"] = F.normalize(said["joint_raw"], dim=1)
        said["visual_refined_mean_c"] = (mean * (1 + end.text_1(colour)))[:, :256]
        said["text_refined"] = (end.text_2(colour) * (1 + torch.sigmoid(for_text)))[:, :256]
    return said


def watched(model, name):
    """Outputs of blocks inside, as they pass: {key of the reference: function of the output}."""
    seen = {}

    def watch(module, part, adds=False):
        """Output of a block, and what the reference keeps of channel 0: the output, or what the block `adds` to its input."""
        module.register_forward_hook(lambda m, i, out: seen.update({part: (out, out - i[0] if adds else out)}))

    base = model.visual.backbone.base
    if name in ("agw", "caj"):
        watch(base.NL_2[0], "nl2", adds=True)
        watch(base.NL_3[-1], "nl3")
    if name.startswith("deen"):
        for n in range(2):
            watch(base.mfa[n], f"mfa{n + 1}")
        watch(base.dee, "dee")
    return seen


@torch.no_grad()
@pytest.mark.parametrize(("name", "case"), FORWARDS if EVERY else FEW_FORWARDS)
def test_forward(name, case, tmp_path):
    """Features of both modalities; a case without reference numbers is finite and differs between images."""
    rgb, ir, count, height, width, salt = inputs.EVAL[case]
    model, _, _ = golden_model(name, tmp_path, salt=salt)
    seen = watched(model, name)
    ids, _ = inputs.tokens(ir, count)
    for modality, seed in ((RGB, rgb), (IR, ir)):
        images = inputs.normalised(inputs.images(seed, count, height, width))
        said = vectors(model, name, modality, images, ids)
        key = f"{name}/{case}/{modality.value}"
        known = {k.split("/")[3] for k in FORWARD if k.startswith(f"{key}/") and not k.endswith("/norm")}
        for what in known & set(said):
            assert_rows(said[what], f"{key}/{what}")
        for part, (out, first) in seen.items():
            if f"{key}/{part}_b0_c0" in FORWARD:
                assert_close(first[0, 0], FORWARD[f"{key}/{part}_b0_c0"])
                assert_close(out.mean(dim=(2, 3))[:, :256], FORWARD[f"{key}/{part}_mean_c"])
        if name == "mmn" and f"{key}/middle_b0_mean_hw" in FORWARD:
            middle = model.visual.middle({modality: images})[modality]
            assert_close(middle.mean(dim=(2, 3))[:1], FORWARD[f"{key}/middle_b0_mean_hw"])
            assert_close(middle[0, 0, 0], FORWARD[f"{key}/middle_b0_c0_row0"])
        if name.startswith("yyds") and modality is IR and f"{key}/text_words_b0_first64" in FORWARD:
            assert_close(model.text.words(ids)[0, :, :64], FORWARD[f"{key}/text_words_b0_first64"])
        for what, rows in said.items():
            assert torch.isfinite(rows).all() and rows.any(), what


@torch.no_grad()
@pytest.mark.parametrize(("name", "case"), SIMILAR if EVERY else [("yyds_regdb", "s"), ("deen_regdb", "s")])
def test_similarity(name, case, tmp_path):
    """What the evaluator ranks by is the authors' similarity: rows, fusion, neck and members as in an evaluation."""
    rgb, ir, count, height, width, salt = inputs.SIMILARITY[case]
    model, _, cfg = golden_model(name, tmp_path, salt=salt)
    images = {m: inputs.normalised(inputs.images(seed, count, height, width)) for m, seed in ((RGB, rgb), (IR, ir))}
    encode = model.encode_mirrored if cfg.TEST.FLIP.ENABLED else model.encode_images
    rows = {m: encode(x, m) for m, x in images.items()}
    embed = unit_after(*batch_norm_affine(model.heads.neck))
    gallery = embed(rows[RGB])
    if name.startswith("yyds"):
        parts = Parts(rows[IR], rows[RGB], model.encode_text(inputs.tokens(ir, count)[0]))
        each = np.arange(count)
        queries = query_embeddings(parts, each, each, model.members, model.fusion, embed)
        found = sum(queries.values()) @ gallery.T
        longest = 37**0.5 if name == "yyds_v1" else 38**0.5
        key, found = f"similarity/{name}/{case}/final", found * longest
    else:
        key, times = {
            "agw": (f"similarity/agw/{case}/after_bn", 1), "caj": (f"similarity/caj/{case}/after_bn", 1),
            "mmn": (f"similarity/mmn/{case}/sum", 4),
        }.get(name, (f"similarity/{name}/{case}/sum", 24))  # fmt: skip
        found = embed(rows[IR]) @ gallery.T * times
    if key in FORWARD:
        assert_close(found, FORWARD[key])
    assert torch.isfinite(found).all() and len(found.unique()) > 1


@pytest.mark.parametrize(("name", "case"), TRAINS if EVERY else FEW_TRAINS)
def test_step(name, case, tmp_path):
    """Losses, gradients, the weights after one step at the config's rates, BN statistics; other cases are finite."""
    method, _, branch = name.partition("/")
    key = f"{method}/{case}" + (f"/{branch}" if branch else "")
    model, keys, cfg, batch = train_model(name, case, tmp_path)
    said = model(batch)
    losses = {loss.removeprefix("loss_"): value for loss, value in said.items()}
    sum(losses.values()).backward()
    named = {keys[n]: p for n, p in model.named_parameters()}
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in named.values() if p.grad is not None)
    if key not in STEPS:
        return
    reference = STEPS[key]
    tolerance = 1e-6
    for theirs, value in reference["losses"].items():
        assert losses[LOSSES[theirs]].item() == pytest.approx(value, rel=tolerance), theirs
    assert_gradients(reference, named, tolerance)
    step(cfg, model, reference["lr"])
    zero = set(reference["zero_gradient"])
    after = {k: v for k, v in reference["after"].items() if k in named and k not in zero}
    assert len(after) >= 5
    for theirs, (norm, *first) in after.items():
        assert named[theirs].norm().item() == pytest.approx(norm, rel=tolerance), theirs
        assert_close(named[theirs].flatten()[:3], first, tolerance)
    buffers = {keys.get(n): b for n, b in model.named_buffers()}
    for theirs, expected in reference["running_means"].items():
        assert buffers[theirs].norm().item() == pytest.approx(expected["norm"], rel=tolerance), theirs


LOSSES = {
    "id": "identity", "wrt": "weighted_triplet", "adp": "squared_difference", "triplet": "hard_triplet", "cpm": "centre_pair",
    "ort": "orthogonality", "text": "text_alignment", "joint_id": "joint_identity", "joint_triplet": "joint_triplet",
    "dcl": "middle_distance", "part": "part_identity", "graph": "graph_identity",
}  # fmt: skip


@pytest.fixture(autouse=True)
def names_of_losses(request, monkeypatch):
    """Of one method, two losses have a name of their own."""
    name = request.node.callspec.params.get("name", "")
    if name == "mmn":
        monkeypatch.setitem(LOSSES, "id", "stripe_identity")
        monkeypatch.setitem(LOSSES, "triplet", "stripe_triplet")
    if name.startswith("yyds_regdb"):
        monkeypatch.setitem(LOSSES, "text", "text_alignment_overlap")


def assert_gradients(reference, named, tolerance):
    """Norm, absolute sum and first numbers of every gradient; none where there is none."""
    zero, seen = set(reference["zero_gradient"]), 0
    for key, (norm, total, *first) in reference["grads"].items():
        # The authors compute gradients of the frozen text encoder and never use them.
        if key in zero or key.startswith("text_encoder"):
            continue
        grad = named[key].grad
        assert grad is not None, key
        assert grad.norm().item() == pytest.approx(norm, rel=tolerance), key
        assert grad.abs().sum().item() == pytest.approx(total, rel=tolerance), key
        assert np.abs(grad.flatten()[:3].numpy() - first).max() <= tolerance * norm, key
        seen += 1
    assert seen > 5
    without = tuple(reference["without_gradient"])
    for key, parameter in named.items():
        if not key.startswith(("text_encoder", "dcl.")):
            assert (parameter.grad is None) == key.startswith(without), key


def step(cfg, model, rate_of_heads):
    """One step of the config's optimizer at the epoch whose rate of the heads is given."""
    factor = rate_of_heads / (cfg.SOLVER.BASE_LR * cfg.SOLVER.HEADS_LR_FACTOR)
    groups = [{**g, "lr": g["lr"] * factor} for g in param_groups(cfg, model)]
    solver = cfg.SOLVER
    torch.optim.SGD(groups, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV).step()
