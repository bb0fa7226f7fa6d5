"""The runtime's token ids are those of the model's tokenizer, for any text."""

import random

import pytest

from tvilfm_plugin.data.tokenizer import CONTEXT_LENGTH, is_cut, tokenize
from tvilfm_plugin.export.tokenizer_file import tokenizer_file
from tvilfm_plugin.runtime.tokens import Tokens

PIECES = [
    *"abcdestr '<>|&;#019.,!?-_\n\t\u00a0\u200b\u2028\u2163\u0663\u00bd\U0001f642\ufb01\u00df\u0130\u212a\ufffd\x07",
    "<|mask|>", "<|startoftext|>", "<|endoftext|>", "<start_of_text>", "&amp;amp;", "&lt;", "'S", "'ll", "\u2019s", "'\u017f",
    "e\u0301", "\u6f22\u5b57", "sch\u00c3\u00b6n",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    content, facts = tokenizer_file()
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    file.write_text(content, encoding="utf-8")
    return Tokens(file, facts)


def test_any_text_gets_the_ids_of_the_model(tokens):
    rng = random.Random(5)
    texts = ["", " ", "a man in a red coat", "word " * 100, "A WOMAN's grey T-shirt, 2 bags & caf\u00e9-brown shoes"]
    texts += ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 40))) for _ in range(1500)]
    symbols = [*map(chr, range(1, 0xD800)), *map(chr, range(0x1F000, 0x20000))]
    texts += ["".join(rng.choices(symbols, k=8)) for _ in range(500)]
    ours, theirs = tokens(texts), tokenize(texts).numpy()
    assert ours.shape[1] == CONTEXT_LENGTH, "one of the texts is too long, so rows are full"
    different = [text for text, a, b in zip(texts, ours, theirs, strict=True) if (a != b).any()]
    assert not different, different[:3]
    assert [tokens.is_cut(text) for text in texts] == [is_cut(text) for text in texts]
    assert is_cut("man " * 76) and not is_cut("man " * 75) and is_cut("a man <|endoftext|> in red")


def test_rows_are_as_long_as_the_longest_text(tokens):
    texts = ["a man", "a man in red"]
    ids = tokens(texts)
    assert ids.shape == (2, 6) and ids[0, -2:].tolist() == [0, 0] and (ids == tokenize(texts).numpy()[:, :6]).all()
