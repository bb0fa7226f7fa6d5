"""A second fence for rephrases: a sentence encoder that finds caption and rephrase alike. The guards read attributes alone."""

from typing import Any

from tvilfm_plugin.captioning.base import quiet_without_a_terminal
from tvilfm_plugin.captioning.weights import find_weights

LEAST = 0.7
"""Cosine that a rephrase needs: of 370 labelled answers of a real model the faithful have 0.84 and more (all-MiniLM-L6-v2)."""


class SentenceFence:
    """A model of transformers (a folder or hub id) whose sentence vector is the mean over tokens, as sentence-transformers'."""

    def __init__(self, source: str, least: float = LEAST, device: str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer

        weights = find_weights(source)
        quiet_without_a_terminal()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(weights.source, **weights.options)
        self.model: Any = AutoModel.from_pretrained(weights.source, **weights.options).to(device).eval()
        weights = weights.checked(self.model)
        self.least = least
        self.provenance = {"sentence_encoder": weights.name, "revision": weights.revision, "least": least}

    def similarity(self, caption: str, rephrase: str) -> float:
        """Cosine of two texts' vectors."""
        import torch
        from torch.nn import functional as F

        tokens = self.tokenizer([caption, rephrase], padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            words = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None]
        first, second = (words * mask).sum(dim=1) / mask.sum(dim=1)
        return float(F.cosine_similarity(first, second, dim=0))

    def objection(self, caption: str, rephrase: str) -> str:
        """Why a rephrase cannot be used; "" if it can."""
        alike = self.similarity(caption, rephrase)
        return f"says something else: similarity {alike:.2f}" if alike < self.least else ""
