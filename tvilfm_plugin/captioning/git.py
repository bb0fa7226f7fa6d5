"""GIT, a captioner with one decoder over image and text tokens."""

from typing import TYPE_CHECKING, Any

from tvilfm_plugin.captioning.base import CAPTIONER_REGISTRY
from tvilfm_plugin.captioning.sentence import SentenceCaptioner
from tvilfm_plugin.captioning.weights import Weights

if TYPE_CHECKING:
    import torch


@CAPTIONER_REGISTRY.register("git")
class GitCaptioner(SentenceCaptioner):
    """`microsoft/git-large-coco` and its kin."""

    @classmethod
    def read(cls, weights: Weights, dtype: "torch.dtype") -> tuple[Any, Any]:
        from transformers import AutoProcessor, GitForCausalLM

        model = GitForCausalLM.from_pretrained(weights.source, dtype=dtype, **weights.options)
        return model, AutoProcessor.from_pretrained(weights.source, **weights.options)

    def begin(self, count: int) -> dict[str, Any]:
        import torch

        tokenizer = self.processor.tokenizer
        # The text begins with [CLS], which is GIT's first token; what closes a text must not follow the prompt.
        begun = [tokenizer.cls_token_id, *tokenizer(self.prompt, add_special_tokens=False).input_ids]
        ids = torch.tensor([begun] * count, device=self.model.device)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "eos_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
