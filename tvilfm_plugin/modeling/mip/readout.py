"""What the encoder looks at and what its prompts are: the model's own values, for pictures.

Letters: B images, P prompts per layer, D width of a token.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.modeling.distributed import full_precision
from tvilfm_plugin.modeling.mip.encoder import MIPEncoder
from tvilfm_plugin.modeling.mip.prompts import modality_labels
from tvilfm_plugin.modeling.mip.vit import Block


class Readout(NamedTuple):
    """Attributes:
    attention: (B, layers, rows, columns): how much the class token attends to each patch, mean over the heads. What is
        missing to 1 goes to the class token and the prompts.
    modality_prompts: (layers, P, D) of the images' modality; empty without MPL.
    instance_prompts: (B, layers, P, D); empty without IPG.
    """

    attention: Tensor
    modality_prompts: Tensor
    instance_prompts: Tensor


@torch.no_grad()
def read_out(encoder: MIPEncoder, images: Tensor, modality: Modality, camids: Tensor | None = None) -> Readout:
    """What a picture shows of (B, 3, H, W) images 0..255 of one modality and (B,) cameras or None; encoder in eval mode."""
    if encoder.training:
        raise RuntimeError("Pictures need the encoder in eval mode: call model.eval() first.")
    maps: list[Tensor] = []

    def keep(block: Block, arguments: tuple[Tensor, Tensor | None]) -> None:
        maps.append(block.attention(*arguments)[:, :, 0, 1 : arguments[0].shape[1]].mean(dim=1))

    hooks = [block.register_forward_pre_hook(keep) for block in encoder.blocks]
    try:
        with full_precision(images.device):
            labels = modality_labels({modality: len(images)}, images.device)
            described = encoder.describe(encoder.normalise(images), labels, camids)
            empty = images.new_empty(0, dtype=torch.float32)
            library = encoder.modality_prompts
            of_modality = [library(n, labels[:1])[0] for n in range(len(maps))] if library is not None else []
    finally:
        for hook in hooks:
            hook.remove()
    return Readout(
        torch.stack(maps, dim=1).unflatten(2, encoder.embedding.grid),
        torch.stack(of_modality) if of_modality else empty,
        torch.stack(described.prompts, dim=1) if described.prompts else empty,
    )
