"""Which rows of a step the losses of stage 2 see. B pairs, D width; every block of B rows is in the same order of persons."""

import torch
from torch import Tensor


def modality_joint(rgb: Tensor, ir: Tensor, fusion: Tensor, text: Tensor) -> Tensor:
    """Modality joint learning (MJL, Eq. 8): [visible 1; visible 2; infrared; fusion; text].

    The filter text serves the fusion only: it gets no loss of its own.

    Args:
        rgb: (2B, D), view 1 then view 2.
        ir, fusion, text: (B, D).

    Returns:
        (5B, D).
    """
    return torch.cat([rgb, ir, fusion, text])


def baseline(rgb: Tensor, ir: Tensor, fusion: Tensor, text: Tensor) -> Tensor:
    """Without MJL: [visible 1; visible 2; fusion], (3B, D); arguments as `modality_joint`."""
    return torch.cat([rgb, fusion])
