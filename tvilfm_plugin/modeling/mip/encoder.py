"""MIP's visual part: a prompted transformer from pixels to five vectors.

Letters: B images, P prompts per layer and kind, D width of a token. As a `VisualEncoder` its features have 5 * D numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tvilfm_plugin.modality import ByModality, Embeddings
from tvilfm_plugin.modeling.mip.generator import PromptFusion, PromptGenerator
from tvilfm_plugin.modeling.mip.parts import LocalBranch, TokenReader
from tvilfm_plugin.modeling.mip.prompts import ModalityPrompts, modality_labels
from tvilfm_plugin.modeling.mip.vit import TokenEmbedding
from tvilfm_plugin.modeling.visual_encoder import VisualEncoder


class Branches(NamedTuple):
    """Of B images the (B, 5, D) features before any neck, global first, and the (B, P, D) prompts that entered each layer."""

    features: Tensor
    prompts: list[Tensor]


def test_feature(branches: Tensor) -> Tensor:
    """(B, 1 + parts, D) -> (B, (1 + parts) * D): global, then the local parts divided by their number."""
    return torch.cat([branches[:, 0], (branches[:, 1:] / (branches.shape[1] - 1)).flatten(1)], dim=1)


class MIPEncoder(VisualEncoder):
    """Every block sees fresh prompts beside class and patch tokens; their own outputs are never computed."""

    def __init__(
        self,
        *,
        embedding: TokenEmbedding,
        blocks: nn.ModuleList,
        modality_prompts: ModalityPrompts | None,
        instance_prompts: PromptGenerator | PromptFusion | None,
        global_branch: TokenReader,
        local_branch: LocalBranch,
        first_camera: int,
        image_size: tuple[int, int],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """Args:
        blocks: those that are executed (each prompted, if there are prompts).
        modality_prompts: MPL, or None.
        instance_prompts: IPG, or None.
        global_branch: reads the class token.
        local_branch: reads the parts of the jigsaw.
        first_camera: the camera number of the camera table's first row.
        pixel_mean: on the scale of 0..255.
        pixel_std: on the scale of 0..255.
        """
        width = embedding.cls.shape[2]
        self.branches = 1 + len(local_branch.index)
        super().__init__(dim=self.branches * width, image_size=image_size, pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.width = width
        self.embedding = embedding
        self.blocks = blocks
        self.modality_prompts = modality_prompts
        self.instance_prompts = instance_prompts
        self.global_branch = global_branch
        self.local_branch = local_branch
        self.first_camera = first_camera

    def forward(self, images: ByModality, camids: ByModality | None = None, ops: ByModality | None = None) -> Embeddings:
        """See `VisualEncoder.forward`. Without `camids` the cameras are unknown and count as the mean of all."""
        # shape[0] and not len, here and below: an exporter keeps the former as a variable and takes the latter for a constant.
        counts = {m: rows.shape[0] for m, rows in images.items() if rows.shape[0]}
        prepared = self.prepare({m: images[m] for m in counts}, ops)
        rows = torch.cat([prepared[m] for m in counts])
        known = None if camids is None else torch.cat([camids[m] for m in counts])
        raw = test_feature(self.describe(rows, modality_labels(counts, rows.device), known).features)
        return dict(zip(counts, raw.split(list(counts.values())), strict=True))

    def describe(self, images: Tensor, labels: Tensor, camids: Tensor | None) -> Branches:
        """The five vectors of (B, 3, H, W) normalised images; (B,) `labels` as in `prompts.LABELS`, (B,) cameras or None."""
        tokens = self.embedding(images, self._camera_rows(camids))
        prompts: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            context = []
            if self.modality_prompts is not None:
                context.append(self.modality_prompts(layer, labels))
            if self.instance_prompts is not None:
                prompts.append(self.instance_prompts(layer, tokens))
                context.append(prompts[-1])
            tokens = block(tokens, torch.cat([rows.to(tokens.dtype) for rows in context], dim=1) if context else None)
        features = self.global_branch(tokens[:, :1], tokens[:, 1:]), self.local_branch(tokens)
        return Branches(torch.cat([features[0].unsqueeze(1), features[1]], dim=1), prompts)

    def _camera_rows(self, camids: Tensor | None) -> Tensor | None:
        if camids is None or self.embedding.camera is None:
            return None
        rows = camids.to(self.pixel_mean.device) - self.first_camera
        # Asking a GPU would make a step wait; the loader has asked the training images. An exporter has no values to ask,
        # nor has the meta device.
        known = not torch.compiler.is_exporting() and not rows.is_meta
        asked = known and (rows.device.type == "cpu" or not self.training)
        if asked and len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self.embedding.camera):
            last = self.first_camera + len(self.embedding.camera) - 1
            raise ValueError(
                f"Camera numbers {sorted(set(camids.tolist()))} do not all lie in {self.first_camera}..{last}. Set "
                "MODEL.MIP.CAMERAS and MODEL.MIP.FIRST_CAMERA to those of the data set."
            )
        return rows
