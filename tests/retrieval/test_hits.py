"""Who votes, and what the votes add up to."""

import itertools

import numpy as np
import pytest

from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.hits import Hit, SearchResult, choose_members, search_index
from tvilfm_plugin.retrieval.hits_table import hits_table
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.records import Filter, Record

IR, TEXT, FUSION = Modality.IR, Modality.TEXT, Modality.FUSION
ALL = (IR, TEXT, FUSION)


@pytest.mark.parametrize("image,text,infrared_text,filters", itertools.product([True, False], repeat=4))
@pytest.mark.parametrize("members", [None, *(set(some) for n in (1, 2, 3) for some in itertools.combinations(ALL, n))])
def test_every_choice_follows_the_rules(image, text, infrared_text, filters, members):
    wanted = ALL if members is None else tuple(m for m in ALL if m in members)
    possible = [m for m in wanted if (m is not TEXT or text) and (m is not IR or image) and (m is not FUSION or image and text)]
    options = {"image": image, "text": text, "infrared_text": infrared_text, "filters": filters, "members": members}
    if not possible:
        with pytest.raises(ValueError, match="needs an infrared image, a text, or both|cannot vote"):
            choose_members(ALL, **options)
        return
    choice = choose_members(ALL, **options)
    unfiltered = FUSION in possible and filters and not infrared_text
    assert choice.filter_text == unfiltered
    if unfiltered and len(possible) > 1:
        possible.remove(FUSION)
    assert list(choice.members) == possible
    assert ("filters itself" in choice.note) == unfiltered
    assert ("no text: " in choice.note) == (image and not text and set(wanted) != {IR})
    assert ("no infrared image: " in choice.note) == (text and not image and set(wanted) != {TEXT})
    assert ("is not used" in choice.note) == (infrared_text and FUSION not in possible)


def test_members_may_be_named_by_strings_and_strangers_are_refused():
    assert choose_members(ALL, image=True, text=True, infrared_text=True, members=["fusion", "ir"]).members == (IR, FUSION)
    with pytest.raises(ValueError, match="cannot ask text; the members of this model are ir"):
        choose_members((IR,), image=True, text=False, infrared_text=False, members=[TEXT])
    with pytest.raises(ValueError, match="cannot ask nobody"):
        choose_members(ALL, image=True, text=False, infrared_text=False, members=[])


def gallery(count=30, dim=8):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    print_ = Fingerprint(weights="", dim=dim, normalisation="", preprocessing="")
    return GalleryIndex.build(vectors, [Record(f"{n}.png", n, n % 3) for n in range(count)], print_), vectors


def test_similarity_is_the_sum_of_the_members_cosines():
    index, vectors = gallery()
    queries = {m: vectors[n] for n, m in enumerate(ALL)}
    hits = search_index(index, queries, 4, Filter(cameras=[1, 2]))
    scores = {n: sum(float(q @ vectors[n]) for q in queries.values()) for n in range(30) if n % 3}
    best = sorted(scores, key=lambda n: -scores[n])[:4]
    assert [hit.pid for hit in hits] == best and [hit.path for hit in hits] == [f"{n}.png" for n in best]
    for hit in hits:
        assert hit.similarity == sum(hit.shares.values()) == pytest.approx(scores[hit.pid], abs=1e-6)
        assert {m: pytest.approx(float(q @ vectors[hit.pid]), abs=1e-6) for m, q in queries.items()} == hit.shares


def test_no_hits_and_no_gallery_are_refused():
    index, vectors = gallery()
    with pytest.raises(ValueError, match="one hit or more, not 0"):
        search_index(index, {IR: vectors[0]}, 0)
    index.remove(list(index.records.paths))
    with pytest.raises(ValueError, match="The gallery is empty"):
        search_index(index, {IR: vectors[0]})


def test_hits_print_plainly():
    hit = Hit("a.jpg", 7, None, 3.5, 0.75, {IR: 0.5, TEXT: 0.25})
    assert str(hit) == "0.7500 (ir 0.50, text 0.25) a.jpg, person 7, time 3.5"
    assert hits_table(SearchResult([hit], "")).splitlines()[2].split()[1] == "1"
    assert hits_table(SearchResult([], "nobody: ...")) == "Nobody was found."
    assert str(SearchResult([hit], "no text")) == f"1. {hit}\nNote: no text." and str(SearchResult([], "")) == "no hit"
