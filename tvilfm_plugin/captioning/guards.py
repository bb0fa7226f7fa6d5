"""What a rephrase must not do: bring in a colour, a garment or a chat model's small talk."""

import re

from tvilfm_plugin.captioning.colour_filter import find_colours
from tvilfm_plugin.captioning.lexicon import colours_in, garment_colours, garments_in
from tvilfm_plugin.modality import Modality

_SMALL_TALK = re.compile(r"\b(?:rephras\w+|as an ai|language model|i'm sorry|i am sorry|i cannot|similar words)\b", re.I)
_LEAD_IN = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|here(?: i|')s|here are|the rephrased|rephrased|answer|assistant)\b"
    r"[^:\n]{0,80}:\s*)+",
    re.IGNORECASE,
)
_MOST_WORDS = 150
# A sweater may be called a top, but a top no sweater.
_ALSO_CALLED = {"sweater": {"top"}, "jacket": {"top"}, "suit": {"jacket", "trousers"}}


def clean_answer(answer: str) -> str:
    """The rephrase without what chat models put around it: lead-ins, quotation marks, further paragraphs."""
    text = answer.replace("</s>", " ").strip()
    text = _LEAD_IN.sub("", text).strip()
    text = text.split("\n\n")[0]
    text = " ".join(text.split())
    while len(text) > 1 and text[0] in "\"'“`*" and text[-1] in "\"'”`*":
        text = text[1:-1].strip()
    return text


def objection(caption: str, rephrase: str, modality: Modality) -> str:
    """Why a rephrase cannot be used, or ""."""
    if not rephrase:
        return "empty"
    if rephrase.lower().strip(" .") == caption.lower().strip(" ."):
        return "copies the caption"
    if len(rephrase.split()) > min(_MOST_WORDS, 3 * len(caption.split()) + 20):
        return "too long"
    if _SMALL_TALK.search(rephrase) and not _SMALL_TALK.search(caption):
        return "talks about the task"
    if modality is Modality.IR:
        found = find_colours(rephrase)
        return f"brings in a colour: {', '.join(found)}" if found else ""
    new = colours_in(rephrase) - colours_in(caption)
    if new:
        return f"brings in a colour: {', '.join(sorted(new))}"
    worn = garments_in(caption)
    new = garments_in(rephrase) - worn - {name for garment in worn for name in _ALSO_CALLED.get(garment, ())}
    if new:
        return f"brings in a garment: {', '.join(sorted(new))}"
    before, after = garment_colours(caption), garment_colours(rephrase)
    moved = sorted(name for name in before.keys() & after.keys() if after[name] - before[name])
    return f"moves a colour to: {', '.join(moved)}" if moved else ""
