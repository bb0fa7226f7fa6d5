"""GIT, a captioner with one decoder over image and text tokens."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tvilfm_plugin.captioning.captioner import CAPTIONER_REGISTRY, Captioner, Description, seeded
from tvilfm_plugin.captioning.weights import Weights

if TYPE_CHECKING:
    import torch
    from PIL import Image


@CAPTIONER_REGISTRY.register("git")
class GitCaptioner(Captioner):
    """`microsoft/git-large-coco` and its kin."""

    trainable: ClassVar[bool] = True

    @classmethod
    def read(cls, weights: Weights, dtype: "torch.dtype") -> tuple[Any, Any]:
        from transformers import AutoProcessor, GitForCausalLM

        model = GitForCausalLM.from_pretrained(weights.source, dtype=dtype, **weights.options)
        return model, AutoProcessor.from_pretrained(weights.source, **weights.options)

    def prepare(self, image: "Image.Image") -> "torch.Tensor":
        """(3, H, W) float32."""
        pixels: torch.Tensor = self.processor.image_processor(images=image, return_tensors="pt").pixel_values[0]
        return pixels

    def describe(self, prepared: Sequence["torch.Tensor"], seed: int) -> list[Description]:
        import torch

        device, tokenizer = self.model.device, self.processor.tokenizer
        pixels = torch.stack(list(prepared)).to(device, self.model.dtype, non_blocking=True)
        # The text begins with [CLS], which is GIT's first token; what closes a text must not follow the prompt.
        begun = [tokenizer.cls_token_id, *tokenizer(self.prompt, add_special_tokens=False).input_ids]
        ids = torch.tensor([begun] * len(prepared), device=device)
        with torch.inference_mode(), seeded(seed, device):
            written = self.model.generate(
                pixel_values=pixels,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                eos_token_id=tokenizer.sep_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **self.decoding.arguments(),
            )
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
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
