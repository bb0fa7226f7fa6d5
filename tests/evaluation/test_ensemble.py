from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_inputs import ensemble_input

from tvilfm_plugin.evaluation.ensemble import ensemble, pack, unpack
from tvilfm_plugin.modality import Modality

IR, RGB, TEXT, FUSION = Modality.IR, Modality.RGB, Modality.TEXT, Modality.FUSION
MEMBERS = (IR, TEXT, FUSION)
GOLDENS = Path(__file__).parents[1] / "goldens"


def embeddings():
    """The reference inputs after the neck (batch norm in eval mode), not normalised: queries and gallery."""
    ir, text, fusion, rgb, gain, bias, mean, var = (torch.from_numpy(part) for part in ensemble_input())
    neck = [F.batch_norm(part, mean, var, gain, bias, training=False) for part in (ir, text, fusion, rgb)]
    return {IR: neck[0], TEXT: neck[1], FUSION: neck[2]}, {RGB: neck[3]}


def test_equals_the_reference_embeddings_and_similarity():
    queries, gallery = embeddings()
    unit = F.normalize(gallery[RGB], dim=1)
    with np.load(GOLDENS / "ensemble.npz") as data:
        for modality, key in ((IR, "feat_ir"), (TEXT, "feat_text"), (FUSION, "feat_fusion")):
            np.testing.assert_allclose(ensemble(queries, [modality]), data[key], atol=1e-6)
        np.testing.assert_allclose(unit, data["feat_gal"], atol=1e-6)
        np.testing.assert_allclose(ensemble(queries, MEMBERS) @ unit.T, data["sim"], atol=2e-6)


@pytest.mark.parametrize("members", [MEMBERS, (IR, TEXT), (FUSION,)])
def test_cosine_of_packed_rows_is_the_mean_similarity(members):
    queries, gallery = embeddings()
    similarity = ensemble(queries, members) @ F.normalize(gallery[RGB], dim=1).T
    packed = F.normalize(pack(queries, members), dim=1) @ F.normalize(pack(gallery, members), dim=1).T
    torch.testing.assert_close(packed * len(members), similarity, atol=2e-6, rtol=0)


def test_unpack_gives_the_unit_members_back():
    queries, gallery = embeddings()
    parts = unpack(pack(queries, MEMBERS), MEMBERS)
    assert list(parts) == list(MEMBERS)
    for member, part in parts.items():
        assert torch.equal(part, F.normalize(queries[member], dim=1))
    for part in unpack(pack(gallery, MEMBERS), MEMBERS).values():
        assert torch.equal(part, F.normalize(gallery[RGB], dim=1))


def test_inputs_stay_as_they_are_and_gradients_flow():
    queries, _ = embeddings()
    before = {m: t.clone() for m, t in queries.items()}
    queries[IR].requires_grad_()
    ensemble(queries, MEMBERS).square().sum().backward()
    assert torch.isfinite(queries[IR].grad).all() and queries[IR].grad.abs().sum() > 0
    assert all(torch.equal(queries[m].detach(), before[m]) for m in queries)


def test_errors_name_what_is_missing():
    queries, gallery = embeddings()
    with pytest.raises(KeyError, match="No text embedding for the ensemble of ir, text; there is ir"):
        ensemble({IR: queries[IR]}, (IR, TEXT))
    with pytest.raises(ValueError, match="different members"):
        pack(queries, (IR, IR))
    with pytest.raises(ValueError, match="different members"):
        pack(gallery, ())
    with pytest.raises(ValueError, match="same query"):
        ensemble({IR: queries[IR], TEXT: queries[TEXT][:3]}, (IR, TEXT))
    with pytest.raises(ValueError, match="width 64 cannot hold 3 members"):
        unpack(queries[IR], MEMBERS)
