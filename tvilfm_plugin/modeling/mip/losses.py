"""MIP's losses, as pure functions of a batch.

Letters: N rows, D width, K training identities. Every loss is computed for each branch (global, four local) and averaged by
`branch_mean`. All compute in float32 (float64 for float64 features), also under autocast.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.losses import at_least_float32, hardest_distances, identity_loss, pairwise_distance


def branch_mean(values: Sequence[Tensor]) -> Tensor:
    """Half the global branch, half the mean of the local ones."""
    return (values[0] + torch.stack(list(values[1:])).mean()) / 2


def soft_margin_triplet(feats: Tensor, pids: Tensor) -> Tensor:
    """Batch-hard triplet loss with a soft margin: mean_a log(1 + exp(d(a, furthest positive) - d(a, nearest negative))).

    Positives and negatives come from both modalities. An anchor without negatives adds nothing.

    Args:
        feats: (N, D) raw features.
        pids: (N,).

    Returns:
        (), finite also where exp would overflow.
    """
    with full_precision(feats.device):
        furthest, nearest = hardest_distances(at_least_float32(feats), pids)
        return F.softplus(furthest - nearest).mean()


def modality_shared_enhancement(feats: Tensor, pids: Tensor, labels: Tensor) -> Tensor:
    """MSEL: an image is as far from its person's images of the other modality as from those of its own.

    For an anchor, intra is its mean distance to its person's other images of its modality, cross that to its person's
    images of the other modality; MSEL is the mean of (cross - intra)^2 over infrared and over visible anchors, averaged.

    Args:
        feats: (N, D) raw features.
        pids: (N,).
        labels: (N,) modality, 0 or 1.

    Returns:
        (); anchors that lack one of the two kinds of partners do not count.
    """
    with full_precision(feats.device):
        distance = pairwise_distance(at_least_float32(feats))
        person = pids[:, None] == pids[None, :]
        own = labels[:, None] == labels[None, :]
        oneself = torch.eye(len(pids), dtype=torch.bool, device=pids.device)
        intra, has_intra = _mean_over(distance, person & own & ~oneself)
        cross, has_cross = _mean_over(distance, person & ~own)
        gap = (cross - intra).square()
        counts = has_intra & has_cross
        per_modality = [_mean_over(gap, counts & (labels == label))[0] for label in (0, 1)]
        return (per_modality[0] + per_modality[1]) / 2


def prompt_identity_loss(logits: Sequence[Tensor], pids: Tensor) -> Tensor:
    """IAEL: mean cross entropy over the prompted layers, each with (N, K) logits of its instance prompts."""
    return torch.stack([identity_loss(of_layer, pids) for of_layer in logits]).mean()


def _mean_over(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the last dimension where the mask holds (0 where it nowhere does), and whether it does anywhere."""
    count = mask.sum(dim=-1)
    return (values * mask).sum(dim=-1) / count.clamp(min=1), count > 0
