"""What a rephrase must not do: leave out an attribute of the caption, bring one in, or talk about anything but the person."""

import re
from collections import Counter
from collections.abc import Iterable

from tvilfm_plugin.captioning.colour_filter import find_colours
from tvilfm_plugin.description.reading import Attributes, Fact, read
from tvilfm_plugin.modality import Modality

_SMALL_TALK = re.compile(
    r"\b(?:rephras\w+|rewritten|as an ai|language model|i'm sorry|i am sorry|i cannot|i'll|similar words|descriptions?|"
    r"original (?:text|person))\b",
    re.I,
)
_LEAD_IN = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|here(?: i|')s|here are|the rephrased|rephrased|answer|assistant)\b"
    r"[^:\n]{0,80}:\s*)+",
    re.IGNORECASE,
)
_QUOTE = re.compile("[\"\u201c\u201d\u00ab\u00bb`*\\[\\]{}<>|&@#\\\\/=_~^:]")
_STAMMER = re.compile(r"\b(\w+),?(?: and)?(?: (?:a|an|the))? \1\b")
_MOST_WORDS = 150
_RUN = 5
# A sweater may be called a top, but a top no sweater.
_ALSO_CALLED = {
    "sweater": {"top"}, "sweatshirt": {"top", "sweater"}, "t-shirt": {"top"}, "shirt": {"top"}, "blouse": {"top"},
    "jacket": {"top"}, "hoodie": {"sweater", "sweatshirt"}, "stole": {"scarf"}, "jeans": {"trousers"}, "joggers": {"trousers"},
}  # fmt: skip
_GARMENTS = ("upper", "lower", "dress", "shoes", "socks", "hat", "glasses", "bag", "thing", "scarf", "watch", "mask",
             "accessory")  # fmt: skip


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
    """Why a rephrase cannot be used, as "kind: what"; "" if it can.

    Both texts are read attribute by attribute (`reading.read`): nothing that the caption states may be lost, and nothing
    brought in. A word that cannot be read is refused too, unless the caption has it: it may be a name, a story or nonsense.
    """
    return _form(caption, rephrase) or _content(read(caption), read(rephrase), caption, rephrase, modality)


def reminder(reasons: Iterable[str]) -> str:
    """What a further attempt is asked to mind, given why earlier ones were refused; "" if there is nothing to say."""
    kept = list(dict.fromkeys(what for reason in reasons for kind, _, what in [reason.partition(": ")] if kind == "leaves out"))
    new = any(reason.startswith(("brings in", "says what", "names")) for reason in reasons)
    said = [f"Mention {'; '.join(kept)}."] if kept else []
    return " ".join([*said, "Add nothing."] if new else said)


def _form(caption: str, rephrase: str) -> str:
    if not rephrase:
        return "empty"
    if _words(rephrase) == _words(caption):
        return "copies the caption"
    if len(rephrase.split()) > min(_MOST_WORDS, 3 * len(caption.split()) + 20):
        return "too long"
    if _SMALL_TALK.search(rephrase) and not _SMALL_TALK.search(caption):
        return "talks about the task"
    foreign = sorted({char for char in rephrase if char.isalpha() and not char.isascii()} - set(caption))
    if foreign or any(not char.isprintable() for char in rephrase):
        return f"is in another script: {' '.join(foreign) or 'control characters'}"
    if again := _repeated(_words(rephrase), _words(caption)) or " ".join(sorted(_stammered(rephrase) - _stammered(caption))):
        return f"repeats itself: {again}"
    if signs := sorted(set(_QUOTE.findall(rephrase)) - set(caption)):
        return f"quotes or lists: {' '.join(signs)}"
    return ""


def _repeated(said: list[str], caption: list[str]) -> str:
    """A run of five words that a rephrase says more often than once and than its caption; ""."""
    runs, own = (Counter(zip(*(words[n:] for n in range(_RUN)), strict=False)) for words in (said, caption))
    return next((" ".join(run) for run, count in runs.items() if count > max(1, own[run])), "")


def _stammered(text: str) -> set[str]:
    """Words that come twice on end: "striped striped", "cap, and a cap"."""
    return {found[1] for found in _STAMMER.finditer(text.lower())}


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _content(before: Attributes, after: Attributes, caption: str, rephrase: str, modality: Modality) -> str:
    if modality is Modality.IR and (found := find_colours(rephrase)):
        return f"brings in a colour: {', '.join(found)}"
    if names := [name for name in after.names if name.lower() not in caption.lower()]:
        return f"names somebody: {', '.join(names)}"
    if others := set(after.others) - set(before.others):
        return f"brings in people: {', '.join(sorted(others))}"
    if numbers := set(after.numbers) - set(before.numbers):
        return f"brings in a number: {', '.join(sorted(numbers))}"
    if reason := _person(before, after):
        return reason
    given, stated = before.facts(), after.facts()
    if modality is Modality.IR:  # a colour in the caption of an infrared image must not survive, and need not
        given = {fact for fact in given if not fact[0].endswith("_colour")}
    allowed = given | {other for fact in given for other in _other_names(fact)}
    if reason := _brought(stated - allowed, given):
        return reason
    if unread := set(after.unread) - set(_words(caption)):
        return f"says what cannot be read: {', '.join(sorted(unread))}"
    if sides := after.sides - before.sides:
        return f"brings in a side: {', '.join(sorted(sides))}"
    lost = {fact for fact in given - stated if not set(_other_names(fact)) & stated}
    # "blue trousers" says "trousers" too.
    told = {(k, t) for k, t in lost if not any(slot.startswith(f"{k}_") and what.startswith(f"{t} ") for slot, what in lost)}
    return f"leaves out: {', '.join(sorted(map(_spoken, told)))}" if lost else ""


def _person(before: Attributes, after: Attributes) -> str:
    said = {before.sex} - {""} or set(before.pronouns)
    if new := ({after.sex} - {""} | set(after.pronouns)) - (said | set(before.pronouns)):
        return f"changes who it is: {', '.join(sorted(new))}"
    if after.age != before.age:
        return f"changes who it is: {after.age or 'no'} age, {before.age or 'none'} in the caption"
    return "" if after.sex or not before.sex or after.pronouns else f"leaves out: the {before.sex}"


def _other_names(fact: Fact) -> Iterable[Fact]:
    """The same attribute under the names that a rephrase may give its garment."""
    slot, value = fact
    name, _, rest = value.partition(" ")
    for other in _ALSO_CALLED.get(name, ()):
        yield slot, f"{other} {rest}".strip()


def _brought(new: set[Fact], given: set[Fact]) -> str:
    """What a rephrase states and its caption does not."""
    colours = {value.split()[-1] for slot, value in new if slot.endswith("_colour")}
    known = {value.split()[-1] for slot, value in given if slot.endswith("_colour")}
    if colours - known:
        return f"brings in a colour: {', '.join(sorted(colours - known))}"
    if garments := sorted(value for slot, value in new if slot in _GARMENTS):
        return f"brings in a garment: {', '.join(garments)}"
    if moved := sorted(" ".join(value.split()[:-1]) or "hair" for slot, value in new if slot.endswith("_colour")):
        return f"moves a colour to: {', '.join(moved)}"
    if denied := sorted(value for slot, value in new if slot == "absent"):
        return f"denies: {', '.join(denied)}"
    return f"brings in an attribute: {', '.join(sorted(map(_spoken, new)))}" if new else ""


def _spoken(fact: Fact) -> str:
    """An attribute in words."""
    slot, value = fact
    if slot == "absent":
        return f"no {value}"
    kind, _, what = slot.partition("_")
    if what == "sleeves":
        *garment, sleeves = value.split()
        return f"{sleeves} sleeves of the {' '.join(garment)}" if sleeves != "sleeveless" else f"sleeveless {' '.join(garment)}"
    if kind == "hair":
        return value if value in ("ponytail", "bun", "bob", "braid", "bald") else f"{value} hair"
    return " ".join(reversed(value.rsplit(" ", 1))) if what else value
