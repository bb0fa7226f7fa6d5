"""Losses of CAJ, DEEN and MMN as pure functions; float32 inside autocast, float64 stays float64.

Letters: B rows of one block, N rows of a batch, D width, K training identities, P identities in a batch.
A *block* is the rows of one modality and branch; row b of every block is the same person.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.losses import at_least_float32, pairwise_distance, weighted_extremes

LARGEST_SQUARE = 88.0
TEMPERATURE = 3.0  # both predictions are divided by it, and their divergence is multiplied by its square


def squared_difference(feats: Tensor, pids: Tensor, clamp: float | None = LARGEST_SQUARE) -> Tensor:
    """CAJ's loss: WRT with the squared difference of its two distances, mean_i log(1 + exp(+-(ap_i - an_i)^2)).

    Where ap = an (collapsed features) its gradient is zero and its value log 2.

    Args:
        feats: (N, D) raw features before the neck.
        pids: (N,) identities.
        clamp: the largest square; the anchors beyond it, the hardest ones, get no gradient (as released). None: no limit.

    Returns:
        ().
    """
    with full_precision(feats.device):
        furthest, nearest = weighted_extremes(at_least_float32(feats), pids)
        difference = furthest - nearest
        square = difference.square() if clamp is None else difference.square().clamp(max=clamp)
        return F.softplus(torch.where(difference > 0, square, -square)).mean()


def channel_kl(logits: Tensor, target: Tensor) -> Tensor:
    """CAJ's distillation term (weight 0 in its published command): KL(target || logits) of softened predictions.

    Args:
        logits: (B, K) that learn, CAJ's visible view 1.
        target: (B, K) that teach, CAJ's infrared rows; no gradient flows to them.

    Returns:
        (), the mean over rows.
    """
    with full_precision(logits.device):
        target_prob = F.softmax(at_least_float32(target.detach()) / TEMPERATURE, dim=1) + 1e-7
        log_prob = F.log_softmax(at_least_float32(logits) / TEMPERATURE, dim=1)
        return F.kl_div(log_prob, target_prob, reduction="batchmean") * TEMPERATURE**2


def class_means(rows: Tensor, pids: Tensor) -> Tensor:
    """(B, D) rows -> (P, D) mean of every identity of the (B,) pids, in the order of the identities."""
    _, index, count = torch.unique(pids, return_inverse=True, return_counts=True)
    total = rows.new_zeros(len(count), rows.shape[1]).index_add(0, index, rows)
    return total / count[:, None].to(rows.dtype)


def centre_pair(rgb: Tensor, ir: Tensor, rgb_branch: Tensor, ir_branch: Tensor, pids: Tensor, margin: float = 0.2) -> Tensor:
    """DEEN's centre-guided pair mining between branch 0 and another branch.

    The class means of the two modalities, one of either branch, should be closer than the two branches' means of one modality,
    and than the means of the nearest other identity.

    Args:
        rgb: (B, D) visible rows of branch 0.
        ir: (B, D) infrared rows of branch 0.
        rgb_branch: (B, D) visible rows of the other branch.
        ir_branch: (B, D) infrared rows of the other branch.
        pids: (B,) identities, the same in all four.
        margin: of the hinges.

    Returns:
        ().
    """
    with full_precision(rgb.device):
        v, i, v_k, i_k = (class_means(at_least_float32(x), pids) for x in (rgb, ir, rgb_branch, ir_branch))

        def half(mine: Tensor, other: Tensor, own: Tensor) -> Tensor:
            across = _row_distance(other, mine)
            within = _row_distance(own, mine).detach()
            strangers = _hinge(across, _nearest_other(mine), margin) + _hinge(across, _nearest_other(own), margin)
            return _hinge(across, within, margin) + strangers / 2

        return (half(v_k, i, v) + half(i_k, v, i)) / 2


def orthogonality(first: Tensor, second: Tensor) -> Tensor:
    """DEEN's: inner products of the rows of two expanded branches, (N, D) raw each, summed, over the rows of all three."""
    with full_precision(first.device):
        return (at_least_float32(first) * at_least_float32(second)).sum() / (3 * len(first))


def centre_distance(first: Tensor, second: Tensor) -> Tensor:
    """Mean Euclidean distance of the unit rows of two (B, D) sets (MMN, between its projected middle features)."""
    with full_precision(first.device):
        units = (F.normalize(at_least_float32(rows), dim=1) for rows in (first, second))
        return _row_distance(*units).mean()


def _row_distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().sum(dim=1).clamp(min=1e-12).sqrt()


def _hinge(near: Tensor, far: Tensor, margin: float) -> Tensor:
    return F.relu(near - far + margin).mean()


def _nearest_other(centres: Tensor) -> Tensor:
    """(P, D) -> (P,) distance of each centre to the nearest other one."""
    diagonal = torch.eye(len(centres), dtype=torch.bool, device=centres.device)
    return pairwise_distance(centres).masked_fill(diagonal, torch.inf).amin(dim=1)
