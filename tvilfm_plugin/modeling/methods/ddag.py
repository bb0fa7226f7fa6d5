"""DDAG's parts: attention over stripes (IWPA) and a graph over the batch (CGSA).

Letters: N images, D width, P stripes (3), K training identities. The raw feature of an image is (N, (1 + P) D): the mean of its
map, then its stripes (`stripes.Stripes` with the whole).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.losses import at_least_float32
from tvilfm_plugin.modeling.necks import PackedHead, frozen_bias_neck, small_classifier

STRIPES = 3
# Of the graph: heads of its first layer, each D / HEADS wide, and dropout on attention and features.
HEADS, DROPOUT = 4, 0.2


class WeightedParts(nn.Module):
    """IWPA: the stripes look at one another; their weighted sum joins the feature after the neck.

    Attributes:
        query, key, value: of every stripe.
        gate: (P,) scores of the stripes, a softmax of which weighs them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.gate = nn.Parameter(torch.full((STRIPES,), 1.0 / STRIPES))

    def forward(self, stripes: Tensor) -> Tensor:
        """(N, P, D) -> (N, D)."""
        attention = F.softmax(self.query(stripes) @ self.key(stripes).transpose(1, 2), dim=2)
        return F.softmax(self.gate, dim=0) @ (attention @ self.value(stripes))


class GraphAttention(nn.Module):
    """One attention head over the rows of a batch; edges are a mask."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inputs, outputs), gain=1.414))
        self.a = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2 * outputs, 1), gain=1.414))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, rows: Tensor, edges: Tensor) -> Tensor:
        """(N, inputs) rows and (N, N) bool edges -> (N, outputs)."""
        h = rows @ self.W
        own, other = self.a.chunk(2)
        scores = F.leaky_relu(h @ own + (h @ other).T, 0.2)
        return self.dropout(F.softmax(scores.masked_fill(~edges, -torch.inf), dim=1)) @ h


class CrossModalGraph(nn.Module):
    """CGSA, a training loss: two layers of graph attention between rows of one identity, whose labels it therefore knows."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(GraphAttention(dim, dim // HEADS) for _ in range(HEADS))
        self.out = GraphAttention(dim // HEADS * HEADS, num_classes)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, rows: Tensor, pids: Tensor) -> Tensor:
        """(N, D) rows and their (N,) identities -> (N, K) log probabilities."""
        rows = self.dropout(at_least_float32(rows))
        edges = pids[:, None] == pids[None, :]
        joined = torch.cat([F.elu(head(rows, edges)) for head in self.attentions], dim=1)
        return F.log_softmax(F.elu(self.out(self.dropout(joined), edges)), dim=1)


class PartHead(PackedHead):
    """Two necks (bias frozen at 0) and one classifier: of the feature, and of the feature with weighted parts.

    Attributes:
        bn, part_bn: the necks, (N, D) -> (N, D).
        parts: `WeightedParts`.
        classifier: "identity": of both; "graph": `CrossModalGraph`, not used in evaluation.
    """

    def __init__(self, *, dim: int, num_classes: int, norm: str = "BN") -> None:
        super().__init__()
        self.packed_dim = dim + 2
        self.bn = frozen_bias_neck(dim, norm)
        self.part_bn = frozen_bias_neck(dim, norm)
        self.parts = WeightedParts(dim)
        # Together, because both have a row per identity: a model that is only evaluated has neither.
        graph = CrossModalGraph(dim, num_classes)
        self.classifier = nn.ModuleDict({"identity": small_classifier(dim, num_classes), "graph": graph})

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, (1 + P) D) -> the feature (N, D), its logits (N, K), and those with weighted parts (N, K)."""
        feature, stripes = self._split(raw)
        after = self.bn(feature)
        classify = self.classifier["identity"]
        return feature, classify(after), classify(self.part_bn(after + self.parts(stripes)))

    def graph(self, rows: Tensor, pids: Tensor) -> Tensor:
        """(N, D) features and their (N,) identities -> (N, K) log probabilities of the graph."""
        return self.classifier["graph"](rows, pids)

    def blocks(self, raw: Tensor, modality: Modality = Modality.RGB) -> Tensor:
        """(N, (1 + P) D) -> (N, D) unit embeddings: the weighted-part feature after its neck."""
        feature, stripes = self._split(raw)
        return F.normalize(self.part_bn(self.bn(feature) + self.parts(stripes)), dim=1)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        vectors = raw.unflatten(1, (1 + STRIPES, -1))
        return vectors[:, 0], vectors[:, 1:]


def graph_weight(mean_of_others: Tensor) -> Tensor:
    """Weight () of the graph's loss: 1 / (1 + mean of the other losses' sum in the previous epoch); 0 where it is negative.

    The first epoch has none before it, which -1 says.
    """
    return torch.where(mean_of_others < 0, torch.zeros_like(mean_of_others), 1 / (1 + mean_of_others.clamp(min=0)))
