"""The losses, as pure functions of a batch; `registries.LOSS_REGISTRY` names them for the config."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.modeling.distributed import full_precision


def identity_loss(logits: Tensor, pids: Tensor) -> Tensor:
    """Cross entropy over the training identities.

    Args:
        logits: (N, K), a row per feature of whatever modality.
        pids: (N,) int64 in [0, K).

    Returns:
        (), the mean over rows, in float32 also under autocast.
    """
    with full_precision(logits.device):
        return F.cross_entropy(at_least_float32(logits), pids)


def weighted_triplet(feats: Tensor, pids: Tensor) -> Tensor:
    """Weighted regularised triplet loss (WRT): every pair counts, the harder the more.

    With d the Euclidean distances, L = mean_i log(1 + exp(sum_j w+_ij d_ij - sum_k w-_ik d_ik)); w+ is a softmax of d
    over the positives (the anchor itself is one), w- a softmax of -d over the negatives.

    Args:
        feats: (N, D) raw features before the neck, a row per feature of whatever modality.
        pids: (N,) identities.

    Returns:
        (), in float32 (float64 for float64 features), also under autocast; finite for any finite distance.
    """
    with full_precision(feats.device):
        furthest, nearest = weighted_extremes(at_least_float32(feats), pids)
        # softplus(x) = log(1 + exp(x)), which overflows where it is written out.
        return F.softplus(furthest - nearest).mean()


def weighted_extremes(feats: Tensor, pids: Tensor) -> tuple[Tensor, Tensor]:
    """WRT's weighted distances (N,) of every anchor to its positives and to its negatives; (N, D) features in float32."""
    distance = pairwise_distance(feats)
    positive = (pids[:, None] == pids[None, :]).to(distance.dtype)
    negative = 1.0 - positive
    furthest = (_soft_weights(distance * positive, positive) * distance).sum(dim=1)
    nearest = (_soft_weights(-distance * negative, negative) * distance).sum(dim=1)
    return furthest, nearest


def hard_triplet(feats: Tensor, pids: Tensor, margin: float = 0.3) -> Tensor:
    """Batch-hard triplet loss: mean_i max(0, d(furthest positive) - d(nearest negative) + margin).

    Args:
        feats: (N, D) raw features; the anchor itself counts among its positives.
        pids: (N,) identities.
        margin: in units of the features.

    Returns:
        (), in float32 (float64 for float64 features), also under autocast.
    """
    with full_precision(feats.device):
        furthest, nearest = hardest_distances(at_least_float32(feats), pids)
        return F.relu(furthest - nearest + margin).mean()


def hardest_distances(feats: Tensor, pids: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N,) of every anchor to its furthest positive (itself is one) and to its nearest negative (inf without)."""
    distance = pairwise_distance(feats)
    # By masks, so that identities may have unequally many images.
    same = pids[:, None] == pids[None, :]
    return distance.masked_fill(~same, -torch.inf).amax(dim=1), distance.masked_fill(same, torch.inf).amin(dim=1)


def pairwise_distance(feats: Tensor) -> Tensor:
    """Euclidean distances (N, N) between the rows of (N, D); at least 1e-6, where the root still has a gradient."""
    square = feats.square().sum(dim=1)
    square = square[:, None] + square[None, :]
    return torch.addmm(square, feats, feats.T, alpha=-2).clamp(min=1e-12).sqrt()


def _soft_weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax (N, N) of each row over the entries of its 0/1 mask, in the form that the method was trained with.

    The maximum is taken over the masked row *including its zeros* (so it is 0 for negatives, whose scores are -d), and
    1e-6 is added to the denominator. The weights of far negatives therefore sum to less than 1: a textbook softmax, which is
    shift-invariant, would train differently.
    """
    weights = torch.exp(scores - scores.amax(dim=1, keepdim=True)) * mask
    return weights / (weights.sum(dim=1, keepdim=True) + 1e-6)


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are."""
    return values if values.dtype is torch.float64 else values.float()
