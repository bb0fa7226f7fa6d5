"""The methods' losses under the names that MODEL.LOSSES.NAME gives them.

Rows come in blocks of B: per branch, [visible; infrared]. A loss that needs more than features, logits and identities names it
as a parameter, and the model hands it over.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modeling import losses
from tvilfm_plugin.modeling.methods import losses as methods
from tvilfm_plugin.modeling.methods import mmn, text_losses
from tvilfm_plugin.registries import LOSS_REGISTRY


@LOSS_REGISTRY.register()
def hard_triplet(features: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """Batch-hard triplet loss with margin 0.3 on raw features."""
    return losses.hard_triplet(features, pids)


@LOSS_REGISTRY.register()
def squared_difference(features: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """CAJ's squared difference, clamped at 88 as released: the hardest anchors get no gradient."""
    return methods.squared_difference(features, pids)


@LOSS_REGISTRY.register()
def squared_difference_unclamped(features: Tensor, logits: Tensor, pids: Tensor) -> Tensor:
    """CAJ's squared difference without its clamp."""
    return methods.squared_difference(features, pids, clamp=None)


@LOSS_REGISTRY.register()
def centre_pair(features: Tensor, logits: Tensor, pids: Tensor, branches: int) -> Tensor:
    """DEEN's centre-guided pair mining of branch 0 with each of the others, summed."""
    (rgb, ir), *others = (block.chunk(2) for block in features.chunk(branches))
    own = pids.chunk(2 * branches)[0]
    return torch.stack([methods.centre_pair(rgb, ir, rgb_k, ir_k, own) for rgb_k, ir_k in others]).sum()


@LOSS_REGISTRY.register()
def orthogonality(features: Tensor, logits: Tensor, pids: Tensor, branches: int) -> Tensor:
    """DEEN's orthogonality of its two expanded branches."""
    _, first, second = features.chunk(branches)
    return methods.orthogonality(first, second)


@LOSS_REGISTRY.register()
def stripe_identity(features: Sequence[Tensor], logits: Sequence[Tensor], pids: Tensor) -> Tensor:
    """MMN's cross entropy, the mean over stripes."""
    return torch.stack([losses.identity_loss(rows, pids) for rows in logits]).mean()


@LOSS_REGISTRY.register()
def stripe_triplet(features: Sequence[Tensor], logits: Sequence[Tensor], pids: Tensor) -> Tensor:
    """MMN's hard triplet over the four pairs of blocks, the mean over stripes; rows [v; v'; i; i'] of each."""
    own = pids.chunk(4)[0]
    blocks = (rows.chunk(4) for rows in features)
    return torch.stack([mmn.pair_triplet(v, v_mid, i, i_mid, own) for v, v_mid, i, i_mid in blocks]).mean()


@LOSS_REGISTRY.register()
def middle_distance(features: Sequence[Tensor], logits: Sequence[Tensor], pids: Tensor, projection: nn.Module) -> Tensor:
    """MMN's distance of projected middle features, the mean over stripes."""
    blocks = [rows.chunk(4) for rows in features]
    return torch.stack([mmn.middle_distance(projection, rgb, ir) for _, rgb, _, ir in blocks]).mean()


@LOSS_REGISTRY.register()
def part_identity(features: Tensor, logits: Tensor, pids: Tensor, part_logits: Tensor) -> Tensor:
    """DDAG's cross entropy of the feature with weighted parts."""
    return losses.identity_loss(part_logits, pids)


@LOSS_REGISTRY.register()
def graph_identity(features: Tensor, logits: Tensor, pids: Tensor, graph_log_prob: Tensor) -> Tensor:
    """DDAG's negative log likelihood of the graph's rows."""
    return F.nll_loss(graph_log_prob, pids)


@LOSS_REGISTRY.register()
def text_alignment(
    features: Tensor, logits: Tensor, pids: Tensor, branches: int, colour: Tensor, text: Tensor, overlap: Tensor
) -> Tensor:
    """YYDS's text loss; how alike two captions are is how far their colours overlap."""
    return text_losses.text_alignment(colour, text, pids.chunk(2 * branches)[0], overlap)


@LOSS_REGISTRY.register()
def text_alignment_overlap(
    features: Tensor, logits: Tensor, pids: Tensor, branches: int, colour: Tensor, text: Tensor, overlap: Tensor
) -> Tensor:
    """The same with the overlap of colours also between images (RegDB, as released)."""
    return text_losses.text_alignment(colour, text, pids.chunk(2 * branches)[0], overlap, overlap_everywhere=True)


@LOSS_REGISTRY.register()
def joint_identity(features: Tensor, logits: Tensor, pids: Tensor, branches: int, joint_logits: Tensor) -> Tensor:
    """Half the cross entropy of YYDS's joint features; rows [visible; infrared]."""
    return losses.identity_loss(joint_logits, pids.chunk(branches)[0]) / 2


@LOSS_REGISTRY.register()
def joint_triplet(features: Tensor, logits: Tensor, pids: Tensor, branches: int, joint: Tensor) -> Tensor:
    """Half the hard triplet of YYDS's joint features."""
    return losses.hard_triplet(joint, pids.chunk(branches)[0]) / 2


@LOSS_REGISTRY.register()
def channel_kl(features: Tensor, logits: Tensor, pids: Tensor, copies: int) -> Tensor:
    """CAJ's distillation of visible view 1 towards infrared (weight 0 in its published command); rows [views; infrared]."""
    first, *_, infrared = logits.chunk(copies)
    return methods.channel_kl(first, infrared)
