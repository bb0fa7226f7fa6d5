"""Text to CLIP token ids without torch; the same ids as `data.tokenizer`, which its test compares."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Tokens:
    """Texts -> ids, by the files that an export wrote."""

    def __init__(self, file: str | Path, facts: Mapping[str, Any]) -> None:
        """Args:
        file: the export's tokenizer.json.
        facts: `pattern`, `special`, `start`, `end`, `context_length`, see `export.tokenizer_file.TokenizerFile`.
        """
        import regex
        from tokenizers import Tokenizer, pre_tokenizers

        self._bpe = Tokenizer.from_file(str(file)).model
        self._bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._words = regex.compile(facts["pattern"], regex.IGNORECASE)
        self._special = {word: int(number) for word, number in facts["special"].items()}
        self.start, self.end, self.context_length = facts["start"], facts["end"], facts["context_length"]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(N, L) int64 ids of N texts, L the longest of them: start id, ids, end id, zeros. Too long a text is cut."""
        rows = [self._row(text) for text in texts]
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for row, numbers in zip(ids, rows, strict=True):
            row[: len(numbers)] = numbers
        return ids

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than a row holds between its start and its end, or names the end itself."""
        ids = self._ids(text)
        return len(ids) > self.context_length - 1 or self.end in ids

    def _row(self, text: str) -> list[int]:
        return [*self._ids(text)[: self.context_length - 1], self.end]

    def _ids(self, text: str) -> list[int]:
        ids = [self.start]
        for word in self._words.findall(clean(text)):
            if word in self._special:
                ids.append(self._special[word])
                continue
            ((piece, _),) = self._bytes.pre_tokenize_str(word)
            ids += [token.id for token in self._bpe.tokenize(piece)]
        return ids


def clean(text: str) -> str:
    """What CLIP does first: repair the encoding, resolve HTML entities twice, single spaces, lower case."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split()).lower()
