"""Modality ensemble retrieval from stored parts: any query type, text and gallery draw, without the network."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.evaluation import fusion as fusions
from tvilfm_plugin.evaluation import ranking
from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.protocols import Labels, Protocol
from tvilfm_plugin.modality import Embeddings, Modality

# Up to this many distances (1 GiB) are computed in one product; beyond, rows when they are ranked.
WHOLE_MATRIX = 1 << 28

Fusion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Raw (Q, D) infrared, text and filter text -> raw (Q, D)."""

Trust = Callable[[np.ndarray, np.ndarray], Tensor]
"""(Q,) rows of `Parts.texts`, words and captions -> (Q,) weights of the words."""


class Parts(NamedTuple):
    """What the network says, once: everything else is computed from it.

    Attributes:
        query: (Q, D) raw features of the query images.
        gallery: (G, D) raw features of the union of all gallery draws.
        texts: (S, D) raw features of the distinct strings, or None without a text encoder.
    """

    query: Tensor
    gallery: Tensor
    texts: Tensor | None


class QueryType(NamedTuple):
    """A row of the result table: a name and the modalities that vote."""

    name: str
    members: tuple[Modality, ...]


IMAGE_ONLY = QueryType("infrared", (Modality.IR,))


class TextIndex(NamedTuple):
    """Which string every query carries: rows of `Parts.texts`.

    Attributes:
        rgb: (T, Q) text of a visible image of the person, for gallery draw t.
        ir: (Q,) text of the query's own infrared image, the filter of Eq. 7.
    """

    rgb: np.ndarray
    ir: np.ndarray


class Trial(NamedTuple):
    """One query type on one gallery draw.

    `top` and `similarity`, (Q, top) each, are the best gallery images of the first draw, for pictures: indices into the
    union, -1 where a query has fewer, and minus the distance by which they were ranked (-inf there).
    """

    query_type: str
    draw: int
    metrics: ranking.RankMetrics
    per_query: ranking.PerQuery
    top: np.ndarray | None = None
    similarity: np.ndarray | None = None


def query_types(source: str, members: Sequence[Modality], fusion: Fusion | None = None) -> tuple[QueryType, ...]:
    """The query types that a text source can answer.

    With source `self` both texts are the same, so Eq. 7 gives exactly the infrared feature: the fusion row would repeat
    the infrared row, and the ensemble is that of infrared and text, unless the fusion answers such a query as well.
    """
    if source == "none":
        return (IMAGE_ONLY,)
    if source == "self" and not getattr(fusion, "answers_self", False):
        members = [m for m in members if m is not Modality.FUSION]
    single = [QueryType(m.value, (m,)) for m in members if m is not Modality.IR]
    return (*single, QueryType("ensemble", tuple(members)))


def query_embeddings(
    parts: Parts,
    rgb: np.ndarray,
    ir: np.ndarray,
    members: Sequence[Modality],
    fusion: Fusion | None,
    embed: Callable[[Tensor], Tensor],
) -> Embeddings:
    """The (Q, D) unit embeddings of every member (Eq. 7 on raw features, then the shared neck and L2).

    Args:
        rgb, ir: (Q,) rows of `parts.texts`.
        fusion: raw (Q, D) infrared, text and filter text -> raw (Q, D).
        embed: raw (N, D) -> unit (N, D).
    """
    raw: Embeddings = {Modality.IR: parts.query}
    if {Modality.TEXT, Modality.FUSION} & set(members):
        if parts.texts is None:
            raise ValueError(f"The members {[m.value for m in members]} need text, but the model has no text encoder.")
        text = parts.texts[torch.from_numpy(rgb)]
        raw[Modality.TEXT] = text if not isinstance(fusion, fusions.Fusion) else fusion.alone(text)
        if Modality.FUSION in members:
            if fusion is None:
                raise ValueError("The member fusion needs a fusion module.")
            raw[Modality.FUSION] = fusion(parts.query, text, parts.texts[torch.from_numpy(ir)])
    return {m: embed(raw[m]) for m in members}


def rank_trials(
    parts: Parts,
    text: TextIndex | None,
    types: Sequence[QueryType],
    draws: Sequence[np.ndarray],
    query: Labels,
    gallery: Labels,
    protocol: Protocol,
    fusion: Fusion | None,
    embed: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor] | None = None,
    top: int = 20,
    trust: Trust | None = None,
) -> Iterator[Trial]:
    """Rank every query type on every gallery draw.

    Args:
        text: the texts of the queries; None for image-only types.
        draws: per draw, the (g,) indices of its images in the union.
        query, gallery: labels of the queries and of the union.
        distance: (Q, D) query and (g, D) gallery vectors -> (Q, g) distances, for re-ranking and query expansion;
            by default minus the inner product, i.e. minus the sum of the members' cosine similarities (Eq. 10).
        top: how many gallery images per query the first draw's trial keeps, as indices into the union (for pictures).
        trust: weights of the words in an ensemble (`text_trust`); None: all count in full.
    """
    by_product = distance is None
    distance = distance or minus_inner_product
    everyone = embed(parts.gallery)
    needed = [m for m in Modality if any(m in kind.members for kind in types)]
    cached: bytes | None = None
    for t, columns in enumerate(draws):
        labels = gallery.at(columns)
        rgb = np.empty(0, np.int64) if text is None else text.rgb[t]
        if cached != rgb.tobytes():
            ir = rgb if text is None else text.ir
            queries = query_embeddings(parts, rgb, ir, needed, fusion, embed)
            weights = trust(rgb, ir) if trust is not None and text is not None else None
            cached = rgb.tobytes()
        chosen = everyone[torch.from_numpy(columns)]
        for kind in types:
            summed = ensemble(queries, kind.members, weights)
            lazy = by_product and len(summed) * len(chosen) > WHOLE_MATRIX
            dist = ranking.MinusInnerProduct(summed, chosen) if lazy else distance(summed, chosen)
            values = ranking.per_query(dist, query, labels, protocol)
            metrics = ranking.aggregate(values, ranking.cmc_length(labels, protocol))
            trial = Trial(kind.name, t, metrics, values)
            if t == 0:
                best, apart = ranking.nearest(dist, query, labels, protocol, top)
                trial = trial._replace(top=np.where(best < 0, -1, columns[best]), similarity=-apart)
            yield trial


def minus_inner_product(query: Tensor, gallery: Tensor) -> Tensor:
    """(Q, D), (g, D) -> (Q, g) float32, the smaller the more alike."""
    with torch.autocast(query.device.type, enabled=False):
        return -(query.float() @ gallery.float().T)


def batch_norm_affine(neck: nn.BatchNorm1d | nn.SyncBatchNorm) -> tuple[Tensor, Tensor]:
    """A BN neck in eval mode as (D,) scale and (D,) shift, on the CPU: all that a stored evaluation needs of it."""
    if neck.running_mean is None or neck.running_var is None:
        raise ValueError("The neck keeps no running statistics, so it has no eval mode.")
    scale = neck.weight / torch.sqrt(neck.running_var + neck.eps)
    return scale.detach().float().cpu(), (neck.bias - neck.running_mean * scale).detach().float().cpu()


def unit_after(scale: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
    """raw (N, D) -> unit (N, D): the neck, then L2."""
    return lambda raw: F.normalize(raw * scale + shift, dim=1)
