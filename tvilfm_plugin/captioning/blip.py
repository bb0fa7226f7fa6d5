"""BLIP, the paper's captioner."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tvilfm_plugin.captioning.captioner import CAPTIONER_REGISTRY, Captioner, Description, seeded
from tvilfm_plugin.captioning.weights import Weights

if TYPE_CHECKING:
    import torch
    from PIL import Image


@CAPTIONER_REGISTRY.register("blip")
class BlipCaptioner(Captioner):
    """`Salesforce/blip-image-captioning-large` and its kin, or a BLIP fine-tuned from it."""

    trainable: ClassVar[bool] = True

    @classmethod
    def read(cls, weights: Weights, dtype: "torch.dtype") -> tuple[Any, Any]:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        model = BlipForConditionalGeneration.from_pretrained(weights.source, dtype=dtype, **weights.options)
        return model, BlipProcessor.from_pretrained(weights.source, **weights.options)

    def prepare(self, image: "Image.Image") -> "torch.Tensor":
        """(3, H, W) float32."""
        pixels: torch.Tensor = self.processor.image_processor(images=image, return_tensors="pt").pixel_values[0]
        return pixels

    def describe(self, prepared: Sequence["torch.Tensor"], seed: int) -> list[Description]:
        import torch

        device, dtype = self.model.device, self.model.dtype
        inputs: dict[str, Any] = {"pixel_values": torch.stack(list(prepared)).to(device, dtype, non_blocking=True)}
        if self.prompt:
            asked = self.processor.tokenizer([self.prompt] * len(prepared), return_tensors="pt").to(device)
            inputs |= {"input_ids": asked.input_ids, "attention_mask": asked.attention_mask}
        with torch.inference_mode(), seeded(seed, device):
            written = self.model.generate(**inputs, **self.decoding.arguments())
        texts = self.processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Description(" ".join(text.split())) for text in texts]

    def training_batch(self, images: Sequence["torch.Tensor"], texts: Sequence[str]) -> dict[str, "torch.Tensor"]:
        import torch

        encoded = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        labels = encoded.input_ids.masked_fill(encoded.attention_mask == 0, -100)
        ids = encoded.input_ids.clone()
        # Generation starts with the decoder's own first token; the tokenizer's [CLS] in its place would never be met again.
        ids[:, 0] = self.model.config.text_config.bos_token_id
        return {
            "pixel_values": torch.stack(list(images)),
            "input_ids": ids,
            "attention_mask": encoded.attention_mask,
            "labels": labels,
        }
