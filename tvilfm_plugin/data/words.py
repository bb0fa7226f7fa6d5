"""Which tokenizer a run uses: CLIP's, or RoBERTa's for a text encoder of that kind."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tvilfm_plugin.data import tokenizer as clip

RELEASED_LENGTH = 20
RELEASED_PAD = 0


class Tokenizer(Protocol):
    """Texts to rows of ids and back.

    Attributes:
        end: the id that ends a text and behind which nothing matters; None: rows are never cut.
        name: what decides the ids, for files that keep them; "" for CLIP's, which such files name themselves.
    """

    length: int
    end: int | None
    name: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N strings -> (N, L) int64."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a row."""


class ClipTokenizer:
    """CLIP's byte pairs (`data.tokenizer`)."""

    length: int = clip.CONTEXT_LENGTH
    end: int | None = clip.END
    name: str = ""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return clip.tokenize(texts)

    def decode(self, ids: Sequence[int]) -> str:
        return clip.decode(ids)


CLIP = ClipTokenizer()


class RobertaTokenizer:
    """RoBERTa's byte pairs by transformers: <s> ids </s>, padded."""

    end: int | None = None

    def __init__(self, source: str, released: bool = False) -> None:
        """Args:
        source: a local folder with the tokenizer's files, or a name on the hub.
        released: 20 ids, of which the end may be cut off, padded with <s>, as YYDS; else CLIP's length, </s> kept, <pad>.
        """
        self.source, self.released = source, released
        self.length = RELEASED_LENGTH if released else clip.CONTEXT_LENGTH
        self.name = f"roberta {source} {released}"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        tokenizer = _roberta(self.source)
        found = tokenizer(list(texts), truncation=not self.released, max_length=None if self.released else self.length)
        pad = RELEASED_PAD if self.released else tokenizer.pad_token_id
        ids = torch.full((len(texts), self.length), pad, dtype=torch.int64)
        for row, some in enumerate(found["input_ids"]):
            some = some[: self.length]
            ids[row, : len(some)] = torch.tensor(some)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(_roberta(self.source).decode(list(ids), skip_special_tokens=True)).strip()


def choose_tokenizer(model: Any) -> Tokenizer:
    """The tokenizer of the section MODEL of a config."""
    if model.TEXT.ARCH != "roberta":
        return CLIP
    return RobertaTokenizer(model.TEXT.WEIGHTS, model.YYDS.TEXT == "released")


@functools.lru_cache(maxsize=4)
def _roberta(source: str) -> Any:
    from transformers import RobertaTokenizerFast

    try:
        return RobertaTokenizerFast.from_pretrained(source)
    except OSError as error:
        raise FileNotFoundError(
            f"MODEL.TEXT.WEIGHTS {source!r} has no RoBERTa tokenizer: name a local folder with its files, or a model on the "
            f"hub that can be fetched, e.g. roberta-base ({str(error).splitlines()[0]})."
        ) from None
