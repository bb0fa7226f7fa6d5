import random
import re

import numpy as np
import pytest

from tvilfm_plugin.analysis.text_noise import ANYBODY, colour_families, drop_attributes, swap_colours, words, wrong_person

TEXTS = [
    "a girl with short blonde hair, wearing a red top, paired with grey jeans and white shoes.",
    "a woman in a red hat wearing a purple long sleeve top paired with a skirt has worn brown footwear, holding a bag.",
    "A man is walking wearing a light-blue shirt, navy blue jeans and an Orange hat. She has blonde hair.",
    "a boy with short hair, wearing a tee, shorts and shoes.",
    "someone",
]


def test_colour_words_are_found_as_whole_words():
    text = "A Navy-Blue tee, redone; an off-white hat, tan, light-blue, tanned"
    assert colour_families(text) == ["blue", "white", "brown", "blue"]


@pytest.mark.parametrize("text", TEXTS)
def test_swapped_colours_are_other_colours_and_nothing_else_changes(text):
    for seed in range(5):
        swapped = swap_colours(text, seed=seed)
        before, after = colour_families(text), colour_families(swapped)
        assert len(before) == len(after) and not set(before) & set(after)
        # The same colour becomes the same other one.
        assert len(set(zip(before, after, strict=True))) == len(set(before))
        bare = lambda t: re.sub(r"\b(a|an)\b", "a", re.sub("|".join(_words()), "COLOUR", t.lower()))
        assert bare(swapped) == bare(text)


def _words():
    return sorted((w for listed in words().colours.values() for w in listed), key=len, reverse=True)


def test_articles_follow_a_swapped_colour():
    texts = {swap_colours("a red bag and an orange hat", seed=seed) for seed in range(40)}
    assert len(texts) > 20
    for text in texts:
        for article, word in re.findall(r"\b(an?) (\w+)", text):
            assert (article == "an") == (word[0] in "aeiou"), text


def test_a_capital_stays():
    assert re.fullmatch(r"[A-Z][a-z]+ shoes", swap_colours("Red shoes"))


def test_every_colour_can_be_swapped_even_if_all_are_named():
    text = ", ".join(listed[0] for listed in words().colours.values())
    before, after = colour_families(text), colour_families(swap_colours(text))
    assert sorted(before) == sorted(after) and all(a != b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("damage", [swap_colours, drop_attributes])
def test_damage_is_seeded_graded_and_leaves_global_state_alone(damage):
    random.seed(1)
    before = random.getstate()
    for text in TEXTS:
        assert damage(text, 0.0) == text
        assert damage(text, 0.5, seed=3) == damage(text, 0.5, seed=3)
        assert damage("", 1.0) == ""
        with pytest.raises(ValueError, match="between 0 and 1"):
            damage(text, 1.5)
    assert random.getstate() == before
    assert len({damage(TEXTS[0], 0.5, seed=seed) for seed in range(20)}) > 5


def test_larger_shares_contain_smaller_ones():
    for text in TEXTS:
        for seed in range(10):
            kept = [drop_attributes(text, share, seed) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
            lengths = [len(one.replace(ANYBODY, "")) for one in kept]
            assert lengths == sorted(lengths, reverse=True)
            wrong = [np.array(colour_families(swap_colours(text, share, seed))) for share in (0.0, 0.3, 0.6, 1.0)]
            changed = [one != wrong[0] for one in wrong]
            assert all((more | ~fewer).all() for fewer, more in zip(changed, changed[1:], strict=False))


def test_what_is_left_reads_as_text():
    assert drop_attributes(TEXTS[0], 1.0) == "a person." and drop_attributes("someone", 1.0) == ANYBODY
    for text in TEXTS[:-1]:
        for seed in range(30):
            left = drop_attributes(text, 0.5, seed)
            assert left.endswith(".") and "  " not in left and " ." not in left and ".." not in left
            assert not re.search(r"with (wearing|paired|has)\b|^(and|,)|person(,| and) ", left), left


def test_about_the_share_is_dropped():
    phrases = [len(drop_attributes(TEXTS[0], share, seed)) for share in (0.3,) for seed in range(300)]
    rest, whole = len("a person."), len(TEXTS[0])
    assert (np.mean(phrases) - rest) / (whole - rest) == pytest.approx(0.7, abs=0.06)


def test_wrong_people_are_other_people():
    pids = np.repeat([5, 3, 9, 7], [1, 10, 4, 25])
    assert wrong_person(pids, 0.0).tolist() == list(range(40))
    taken = wrong_person(pids, 1.0, seed=2)
    assert (pids[taken] != pids).all()
    # All other identities alike, however many queries they have.
    counts = np.bincount(np.concatenate([pids[wrong_person(pids, 1.0, seed=s)][pids == 3] for s in range(200)]), minlength=10)
    assert counts[3] == 0 and counts[[5, 7, 9]] / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.05)
    some, more = wrong_person(pids, 0.3, seed=2), wrong_person(pids, 0.7, seed=2)
    moved = some != np.arange(40)
    assert 0 < moved.sum() < (more != np.arange(40)).sum() and (some[moved] == more[moved]).all()
    with pytest.raises(ValueError, match="all queries are of one identity"):
        wrong_person(np.array([4, 4]), 0.5)
