"""Text to CLIP token ids, by open_clip's byte-pair tokenizer."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

CONTEXT_LENGTH = 77
VOCABULARY = 49408
START, END, MASK = 49406, 49407, 49405
# Written in a text, these stand for one id. CLIP knows the first two; the mask is the authors' and has the id of the
# word "jekyll", which their code therefore cannot encode and ours encodes as CLIP does.
SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END, "<|mask|>": MASK}


def tokenize(texts: Sequence[str]) -> Tensor:
    """CLIP ids of some texts: HTML entities resolved twice, encoding repaired, lower case, byte pairs.

    Returns:
        (N, 77) int64, each row start id, ids, end id, then zeros; a text too long is cut and ends with the end id.
    """
    if isinstance(texts, str):
        raise TypeError(f"tokenize expects a sequence of texts and got the single string {texts!r}; pass [text].")
    return open_clip_tokenizer()(list(texts), context_length=CONTEXT_LENGTH)


def is_cut(text: str) -> bool:
    """Whether a text is longer than a row holds between its start and its end, or names the end (`SPECIAL`) itself."""
    ids = open_clip_tokenizer().encode(text)
    return len(ids) > CONTEXT_LENGTH - 2 or END in ids


def end_of_text(tokens: Tensor, end: int = END, *, check: bool = True) -> Tensor:
    """Where a text ends: the one rule for training, evaluation, search and export.

    Ids behind the end are padding; in front of it every id is a part of the text, 0 too ("!" inside a run of signs).

    Args:
        tokens: (N, L) ids.
        end: the end-of-text id.
        check: whether to look at every row; an exporter has no values to look at, and a GPU would have to be waited for.

    Returns:
        (N,) position of each row's first end-of-text id.
    """
    ends = tokens == end
    if check and not bool(ends.any(dim=1).all()):
        row = int((~ends.any(dim=1)).nonzero()[0])
        raise ValueError(
            f"Row {row} of {len(tokens)} has no end-of-text id ({end}) in its {tokens.shape[1]} tokens: it was cut off or made "
            "by another tokenizer. data.tokenizer.tokenize ends every text."
        )
    return ends.int().argmax(dim=1)


def decode(ids: Sequence[int]) -> str:
    """The text of some ids, without start, end and padding; words are separated by single spaces, punctuation too."""
    inner = []
    for token in ids:
        if token == END:
            break
        if token != START:
            inner.append(int(token))
    return open_clip_tokenizer().decode(inner).strip()


def forget_words() -> None:
    """Drop the words that the tokenizer remembers: it keeps each one for ever, also those of a search for a person."""
    open_clip_tokenizer().cache = {name: name for name in SPECIAL}


class TokenStore:
    """Each distinct text tokenised once: `store[text]` is its (77,) int64 row; `ids` the (S, 77) uint16 rows in order."""

    def __init__(
        self, texts: Iterable[str], ids: np.ndarray | None = None, tokens: Callable[[Sequence[str]], Tensor] = tokenize
    ) -> None:
        """`texts` will be asked for; `ids` are theirs where known already, else `tokens` makes them (below 65536)."""
        self._row = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        # uint16 holds every CLIP and RoBERTa id: four times less memory in every loader process.
        self.ids = tokens(list(self._row)).numpy().astype(np.uint16) if ids is None else ids
        if len(self.ids) != len(self._row):
            raise ValueError(f"{len(self._row)} distinct texts cannot have {len(self.ids)} rows of ids.")

    def __len__(self) -> int:
        return len(self._row)

    def __contains__(self, text: object) -> bool:
        return text in self._row

    def __getitem__(self, text: str) -> Tensor:
        return torch.from_numpy(self.ids[self.row(text)].astype(np.int64))

    def row(self, text: str) -> int:
        """Where `ids` has the text."""
        try:
            return self._row[text]
        except KeyError:
            raise KeyError(
                f"The text {text!r} was not tokenised; this store holds {len(self)} texts. "
                "Build the TokenStore from all captions and rephrases that will be asked for."
            ) from None


@lru_cache(maxsize=1)
def open_clip_tokenizer() -> Any:
    """open_clip's tokenizer, with CLIP's own spelling of the special tokens (open_clip's is `<start_of_text>`)."""
    from tvilfm_plugin.data.open_clip_files import tokenizer as module

    tokenizer = module.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    if (tokenizer.sot_token_id, tokenizer.eot_token_id) != (START, END):
        raise RuntimeError(
            f"open_clip's tokenizer starts and ends a text with {tokenizer.sot_token_id} and {tokenizer.eot_token_id}, "
            f"CLIP with {START} and {END}. Install the open_clip_torch version named in requirements.txt."
        )
    names = "|".join(name.replace("|", r"\|") for name in SPECIAL)
    body = tokenizer.pat.pattern.split("|", 2)[2]
    tokenizer.pat = module.re.compile(f"{names}|{body}", module.re.IGNORECASE)
    tokenizer.cache = {name: name for name in SPECIAL}
    tokenizer.encoder.update(SPECIAL)
    return tokenizer
