"""Parts of the methods on small numbers."""

import golden_inputs_baselines as inputs
import pytest
import torch
import torch.nn.functional as F
from golden_methods import small_roberta

from tvilfm_plugin.evaluation.fusion import JointEnd, LateJoin
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.methods.ddag import graph_weight
from tvilfm_plugin.modeling.methods.mmn import StripeHeads
from tvilfm_plugin.modeling.methods.stripes import Stripes
from tvilfm_plugin.modeling.methods.yyds import JointRelation, RobertaSentence, YYDSHead
from tvilfm_plugin.modeling.methods.yyds_model import _roberta

RGB, IR = Modality.RGB, Modality.IR


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_packed_rows_of_mmn_rank_by_the_sum_of_four():
    heads = StripeHeads(dim=8, num_classes=3).eval()
    raw = noise(5, 64)
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


def test_graph_weight_starts_with_the_second_epoch():
    assert graph_weight(torch.tensor([-1.0, 0.0, 3.0])).tolist() == [0.0, 1.0, 0.25]


# --- YYDS -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_late_join_is_the_join_of_the_maps():
    relation = JointRelation(8).eval()
    for buffer in relation.buffers():
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    maps, colour = noise(3, 24, 4, 2), noise(3, 8, seed=1)
    late = relation.end.join(relation.image_part(maps), colour)
    assert torch.allclose(late, relation(maps, colour), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("mirrors", [1, 2])
def test_rows_of_yyds_rank_by_the_sum_of_eight(mirrors):
    """With mirror images: blocks averaged, not normalised again; a stored fusion gives the same."""
    dim, end = 8, JointEnd(8).eval()
    head = YYDSHead(dim=dim, num_classes=3, mirrors=mirrors).eval()
    raw = {m: [noise(2, 6 * dim, seed=10 * n + k) for k in range(mirrors)] for n, m in enumerate((RGB, IR))}
    text = noise(2, dim, seed=99)
    rows = {m: head.rows(images[0], m, images[1] if mirrors == 2 else None, end) for m, images in raw.items()}
    state = LateJoin(dim=head.packed_dim, width=dim, end=end).state_dict()
    fusion = LateJoin.restored(head.packed_dim, state).eval()
    query = [head.embed(row) for row in (rows[IR], fusion.alone(text), fusion(rows[IR], text))]
    found = 38**0.5 * sum(query) @ head.embed(rows[RGB]).T

    def mean(per_image):
        return torch.stack(per_image).mean(dim=0)

    six = {m: mean([head.units(x[:, : 3 * dim]) for x in images]) for m, images in raw.items()}
    seen = [head.colour(x[:, 3 * dim : 4 * dim]) for x in raw[RGB]]
    v2t = mean([F.normalize(x, dim=1) for x in seen])
    joint_g = mean([F.normalize(end.join(x[:, 4 * dim :], c), dim=1) for x, c in zip(raw[RGB], seen, strict=True)])
    joint_q = mean([F.normalize(end.join(x[:, 4 * dim :], text), dim=1) for x in raw[IR]])
    expected = torch.einsum("qbd,gbd->qg", six[IR], six[RGB]) + F.normalize(text, dim=1) @ v2t.T + joint_q @ joint_g.T
    assert torch.allclose(found, expected, atol=1e-5)
    alone = 38**0.5 * 6**0.5 * head.embed(rows[IR]) @ head.embed(rows[RGB]).T
    assert torch.allclose(alone, 6**0.5 * torch.einsum("qbd,gbd->qg", six[IR], six[RGB]), atol=1e-4)
    if mirrors == 1:
        # Re-ranking also compares queries with queries: the mean of eight cosines everywhere, of six without a text.
        for asked, of_query in (
            (sum(query), [six[IR].flatten(1), F.normalize(text, dim=1), joint_q]),
            (query[0], [six[IR].flatten(1)]),
        ):
            of_gallery = [six[RGB].flatten(1), v2t, joint_g][: len(of_query)]
            features = torch.cat([torch.cat(of_query, dim=1), torch.cat(of_gallery, dim=1)])
            both = torch.cat(fusion.comparable(F.normalize(asked, dim=1), head.embed(rows[RGB])))
            assert torch.allclose(both @ both.T, features @ features.T / (8 if len(of_query) == 3 else 6), atol=1e-5)


def test_the_mean_over_words_ignores_padding(tmp_path):
    text = RobertaSentence(_roberta(small_roberta(tmp_path)), 8)
    ids, _ = inputs.tokens(1, 3)
    ids[0, -1] = 2
    longer = torch.cat([ids, torch.ones(3, 5, dtype=torch.int64)], dim=1)
    assert torch.allclose(text(ids), text(longer), atol=1e-5)
    assert not text.train().encoder.training
    assert RobertaSentence(text.encoder, 8, dropout=True).train().encoder.training


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="classifier or raw"):
        YYDSHead(dim=4, num_classes=2, logits="other")
    with pytest.raises(FileNotFoundError, match=r"has no RoBERTa: name a local folder with config.json"):
        _roberta(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="has no joint relation"):
        LateJoin(dim=9, width=1)(noise(1, 9), noise(1, 1))
