"""CLIP's tokenizer as a file of the `tokenizers` library, which needs no torch; the ids are those of `data.tokenizer`."""

from typing import Any, NamedTuple

from tvilfm_plugin.data import tokenizer


class TokenizerFile(NamedTuple):
    """What a runtime needs for CLIP's ids.

    Attributes:
        content: a `tokenizer.json`: byte-pair model, pre-tokenizer.
        facts: `pattern` that cuts a text into words (of the `regex` package), ids of `special` words, `start`, `end`,
            `context_length`.
    """

    content: str
    facts: dict[str, Any]


def tokenizer_file() -> TokenizerFile:
    """open_clip's vocabulary and merges, rewritten."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    source = tokenizer.open_clip_tokenizer()
    merges = sorted(source.bpe_ranks, key=source.bpe_ranks.__getitem__)
    # The special words are the facts': one of them shares its id with a word of the vocabulary.
    vocabulary = {word: number for word, number in source.encoder.items() if word not in tokenizer.SPECIAL}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    pattern = source.pat.pattern
    # For other languages; the runtime here cuts with `regex`, whose Unicode tables are those of the original.
    words = pre_tokenizers.Split(Regex(f"(?i){pattern}"), "removed", invert=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    facts = {
        "pattern": pattern,
        "special": dict(tokenizer.SPECIAL),
        "start": tokenizer.START,
        "end": tokenizer.END,
        "context_length": tokenizer.CONTEXT_LENGTH,
    }
    return TokenizerFile(made.to_str(), facts)
