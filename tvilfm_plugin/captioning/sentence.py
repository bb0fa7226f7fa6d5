"""What captioners have in common that go on with a sentence: an image and the beginning of a text in, the whole text out."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tvilfm_plugin.captioning.base import Captioner, Description, seeded

if TYPE_CHECKING:
    import torch
    from PIL import Image


class SentenceCaptioner(Captioner):
    """A captioner whose processor makes pixels of images and tokens of texts, and whose prompt begins every caption."""

    trainable: ClassVar[bool] = True

    @abstractmethod
    def begin(self, count: int) -> dict[str, Any]:
        """Arguments of the model's `generate` that hold the beginning of `count` captions, on the model's device."""

    def prepare(self, image: "Image.Image") -> "torch.Tensor":
        """(3, H, W) float32."""
        pixels: torch.Tensor = self.processor.image_processor(images=image, return_tensors="pt").pixel_values[0]
        return pixels

    def describe(self, prepared: Sequence["torch.Tensor"], seed: int) -> list[Description]:
        import torch

        device, dtype = self.model.device, self.model.dtype
        pixels = torch.stack(list(prepared)).to(device, dtype, non_blocking=True)
        with torch.inference_mode(), seeded(seed, device):
            written = self.model.generate(pixel_values=pixels, **self.begin(len(prepared)), **self.decoding.arguments())
        texts = self.processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Description(" ".join(text.split())) for text in texts]

    def training_batch(self, images: Sequence["torch.Tensor"], texts: Sequence[str]) -> dict[str, "torch.Tensor"]:
        import torch

        encoded = self.processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return {
            "pixel_values": torch.stack(list(images)),
            "input_ids": encoded.input_ids,
            "attention_mask": encoded.attention_mask,
            "labels": encoded.input_ids.masked_fill(encoded.attention_mask == 0, -100),
        }
