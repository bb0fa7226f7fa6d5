"""BLIP, the paper's captioner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tvilfm_plugin.captioning.base import CAPTIONER_REGISTRY
from tvilfm_plugin.captioning.sentence import SentenceCaptioner
from tvilfm_plugin.captioning.weights import Weights

if TYPE_CHECKING:
    import torch


@CAPTIONER_REGISTRY.register("blip")
class BlipCaptioner(SentenceCaptioner):
    """`Salesforce/blip-image-captioning-large` and its kin, or a BLIP fine-tuned from it."""

    @classmethod
    def read(cls, weights: Weights, dtype: "torch.dtype") -> tuple[Any, Any]:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        model = BlipForConditionalGeneration.from_pretrained(weights.source, dtype=dtype, **weights.options)
        return model, BlipProcessor.from_pretrained(weights.source, **weights.options)

    def begin(self, count: int) -> dict[str, Any]:
        if not self.prompt:
            return {}
        asked = self.processor.tokenizer([self.prompt] * count, return_tensors="pt").to(self.model.device)
        return {"input_ids": asked.input_ids, "attention_mask": asked.attention_mask}

    def training_batch(self, images: Sequence["torch.Tensor"], texts: Sequence[str]) -> dict[str, "torch.Tensor"]:
        batch = super().training_batch(images, texts)
        # Generation starts with the decoder's own first token; the tokenizer's [CLS] in its place would never be met again.
        batch["input_ids"][:, 0] = self.model.config.text_config.bos_token_id
        return batch
