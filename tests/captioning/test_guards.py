"""The guards against what a real language model wrote, against sentences that say the same, and reason by reason."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tvilfm_plugin.captioning.guards import objection, reminder
from tvilfm_plugin.modality import Modality

HERE = Path(__file__).parent
# The word lists were written with the first file in view, and not the second (seed 17 of write_answers.py).
ROWS = {
    name: [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
    for name in ("answers.jsonl", "held_out.jsonl")
}

# The same attributes in other words, written by hand.
FAITHFUL = [
    ("a man with short black hair wearing a half sleeve blue t - shirt and jeans pants, holding a mobile in his right hand.",
     "A man with a short, black haircut wears a short-sleeved blue T-shirt paired with denim pants, and holds a mobile phone."),
    ("a girl with a ponytail wearing a full sleeve top with pants has worn shoes",
     "A young woman whose hair is tied in a ponytail, dressed in a long-sleeved top, pants and shoes."),
    ("a person in a red shirt and blue trousers", "A pedestrian wears blue pants and a red shirt."),
    ("a woman with long brown hair wearing a grey coat, black leggings and boots, carrying a white handbag.",
     "A lady with brown, long hair in a gray coat and black leggings. She wears boots and carries a white purse."),
    ("a boy wearing a hooded sweater, shorts, without a bag", "A young man in a hoodie and shorts who is not carrying a bag."),
    ("a man wearing a jacket, trousers and shoes, carrying a backpack.",
     "The person is a man with a rucksack, dressed in a jacket, pants and footwear."),
    ("a lady with open hair, wearing a black and white striped kurta and white sandals",
     "A female with loose hair, who has on white sandals and a striped kurta that is black and white."),
    ("a man in a white t-shirt and a green cap wearing glasses", "A male in a green cap, a white tee and spectacles."),
    ("an elderly man with an umbrella in a long brown coat", "An old man in a long brown coat, holding an umbrella."),
    ("a woman in a sleeveless red dress and heels", "A woman wears a red dress without sleeves and high heels."),
    ("a bald man in a hooded sweater", "The outfit of the man is a hooded sweater, and he is bald."),
]  # fmt: skip

CAPTION = "a young woman with long black hair wearing a short-sleeved red t-shirt, a blue skirt and white shoes, without a bag."
SAME = "A young lady with long black hair in a short-sleeved red t-shirt, a blue skirt and white shoes, without a bag."
# What is exchanged in SAME, and why that cannot pass.
CHANGES = [
    ("short-sleeved ", "", "leaves out: short sleeves"),
    ("long black", "black", "leaves out: long hair"),
    ("black ", "", "leaves out: black hair"),
    (", without a bag", "", "leaves out: no bag"),
    ("a blue skirt and ", "", "leaves out: blue skirt"),
    ("without", "with", "brings in a garment: bag"),
    ("young lady", "lady", "changes who it is"),
    ("young lady", "young man", "changes who it is: man"),
    ("bag.", "bag. He is tall.", "changes who it is: man"),
    ("A young lady", "Malala, a young lady", "names somebody: Malala"),
    ("lady", "lady named Ann", "names somebody"),
    ("lady", "lady and her brother", "brings in people: brother"),
    ("A young", "A 19-year-old young", "brings in a number: 19"),
    ("long black", "curly long black", "brings in an attribute: curly hair"),
    ("a blue", "a striped blue", "brings in an attribute: striped skirt"),
    ("red t-shirt, a blue", "blue t-shirt, a red", "moves a colour to"),
    ("red", "green", "brings in a colour: green"),
    ("bag.", "bag or a hat.", "denies: hat"),
    ("lady with", "lady is a skirt with", "says what cannot be read: is a skirt"),
    ("bag.", "bag, holding a frobnicator.", "says what cannot be read: frobnicator"),
    ("A young", '"A young', "quotes or lists"),
    ("A young", "The description: a young", "talks about the task"),
    ("lady", "lady\x00", "is in another script: control"),
    ("lady", "dame élégante", "is in another script: é"),
    ("bag.", "bag, a blue skirt and white shoes, without a bag.", "repeats itself: a blue skirt and white"),
    ("bag.", "bag, and a bag.", "repeats itself: bag"),
    (SAME, "Une jeune femme aux longs cheveux noirs, sans sac.", "names somebody: Une"),
    (SAME, "The quick fox.", "changes who it is"),
    (SAME, CAPTION.replace(",", "").upper(), "copies the caption"),
]


@pytest.mark.parametrize("name", ROWS)
def test_what_a_real_model_wrote(name: str) -> None:
    """Answers of a small chat model (see write_answers.py), labelled by hand; copies and quotations count as unfaithful."""
    rows = ROWS[name]
    assert {row["modality"] for row in rows} == {"rgb", "ir"} and sum(map(len, ROWS.values())) >= 200
    table = Counter((row["faithful"], not objection(row["caption"], row["answer"], Modality(row["modality"]))) for row in rows)
    print(f"\n{name:16}accepted refused")
    for label, what in ((True, "faithful"), (False, "unfaithful")):
        print(f"{what:16}{table[label, True]:8}{table[label, False]:8}")
    assert table[False, False] >= 0.95 * (table[False, False] + table[False, True])
    assert table[True, False] <= 0.05 * (table[True, False] + table[True, True])


@pytest.mark.parametrize(("caption", "rephrase"), FAITHFUL)
def test_the_same_in_other_words_is_accepted(caption: str, rephrase: str) -> None:
    assert objection(caption, rephrase, Modality.RGB) == ""


@pytest.mark.parametrize(("old", "new", "reason"), CHANGES)
def test_reasons(old: str, new: str, reason: str) -> None:
    assert objection(CAPTION, SAME, Modality.RGB) == "" and old in SAME
    assert objection(CAPTION, SAME.replace(old, new, 1), Modality.RGB).startswith(reason)


def test_infrared() -> None:
    caption, same = "a man in a coat and boots", "A man wears boots and a coat."
    assert objection(caption, "The quick fox.", Modality.IR)
    assert objection(caption, same, Modality.IR) == ""
    assert objection(caption, same.replace("coat", "black coat"), Modality.IR) == "brings in a colour: black"
    # The colour that a caption of an infrared image should not have may go.
    assert objection(caption.replace("coat", "red coat"), same, Modality.IR) == ""


def test_a_further_attempt_hears_what_was_missing() -> None:
    assert reminder([]) == "" == reminder(["copies the caption"])
    assert reminder(["leaves out: no bag, short sleeves of the shirt", "leaves out: no bag, short sleeves of the shirt"]) == (
        "Mention no bag, short sleeves of the shirt."
    )
    assert reminder(["brings in a colour: red", "leaves out: cap"]) == "Mention cap. Add nothing."
