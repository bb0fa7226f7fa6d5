"""A small BLIP from its configuration alone: nothing is downloaded. For demonstrations, tests and machines without a GPU."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")


class SmallBlip(NamedTuple):
    """An untrained model with the processor that fits it."""

    model: Any
    processor: Any


def word_vocabulary(texts: Iterable[str], size: int = 4000) -> dict[str, int]:
    """Token ids of the most frequent words (and punctuation) of some captions, and of letters to spell the others."""
    words = Counter(word for text in texts for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()))
    letters = sorted({letter for word in words for letter in word} | set("abcdefghijklmnopqrstuvwxyz0123456789.,'-"))
    frequent = [word for word, _ in sorted(words.items(), key=lambda entry: (-entry[1], entry[0])) if word not in letters]
    pieces = [*SPECIALS, *letters, *[f"##{letter}" for letter in letters], *frequent]
    return {piece: n for n, piece in enumerate(pieces[: max(size, len(SPECIALS) + 2 * len(letters))])}


def build_small_blip(
    texts: Iterable[str],
    *,
    image_size: int = 64,
    patch_size: int = 8,
    width: int = 128,
    vision_layers: int = 3,
    text_layers: int = 2,
    max_tokens: int = 64,
    seed: int = 0,
) -> SmallBlip:
    """Build it for the vocabulary of some captions and square images; `width` of both towers: a multiple of 32."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    vocabulary = word_vocabulary(texts)
    tokenizer = BertTokenizer(vocab=vocabulary, bos_token="[DEC]", model_max_length=max_tokens)
    shared = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "projection_dim": width,
        "num_attention_heads": width // 32,
        # The default, 1e-10, makes a tower that hardly depends on the image: such a model learns to write and not to look.
        "initializer_range": 0.02,
    }
    vision = {"num_hidden_layers": vision_layers, "image_size": image_size, "patch_size": patch_size, "hidden_act": "gelu"}
    text = {
        "vocab_size": len(vocabulary),
        "encoder_hidden_size": width,
        "num_hidden_layers": text_layers,
        "max_position_embeddings": max_tokens,
        "bos_token_id": vocabulary["[DEC]"],
        "eos_token_id": vocabulary["[SEP]"],
        "sep_token_id": vocabulary["[SEP]"],
        "pad_token_id": vocabulary["[PAD]"],
    }
    widths = {"projection_dim": width, "image_text_hidden_size": width}
    config = BlipConfig(vision_config=shared | vision, text_config=shared | text, **widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BlipForConditionalGeneration(config)
    images = BlipImageProcessor(size={"height": image_size, "width": image_size})
    return SmallBlip(model, BlipProcessor(images, tokenizer))
