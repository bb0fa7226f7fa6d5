import numpy as np
import oracles_stats as oracle
import pytest

from tvilfm_plugin.analysis.fallback import (
    Evidence,
    caption_evidence,
    fall_back,
    joint_peak,
    other_peaks,
    standardised,
    text_trust,
)
from tvilfm_plugin.evaluation.protocols import REGDB, Labels
from tvilfm_plugin.evaluation.ranking import rank_metrics
from tvilfm_plugin.modality import Modality


def world(seed=0, people=60, dim=24):
    """Images see a person's shape, texts tell shape and colour; (Q, G) similarities and labels."""
    rng = np.random.default_rng(seed)
    shape, colour = rng.normal(size=(8, dim))[rng.integers(0, 8, people)], rng.normal(size=(people, dim))
    unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    noisy = lambda x, much: unit(x + much * rng.normal(size=x.shape))
    gallery = noisy(np.repeat(shape + colour, 4, axis=0), 0.5)
    image, text = noisy(shape + 0.5 * colour, 0.6), noisy(shape + colour, 0.5)
    pids = np.arange(people)
    return image @ gallery.T, text @ gallery.T, Labels(pids, pids), Labels(np.repeat(pids, 4), np.zeros(4 * people, int))


def mean_ap(similarity, query, gallery):
    return rank_metrics(-similarity, query, gallery, REGDB).mAP


def gallery_evidence(image, text, others):
    return Evidence(joint_peak(image, text), other_peaks(image, others))


def trust_in(image, text, others, low=0.5):
    return text_trust([gallery_evidence(image, text, others)], low)


@pytest.mark.parametrize("low", [0.0, 0.5, 0.8])
def test_trust_equals_the_twin(low):
    rng = np.random.default_rng(1)
    image, text, others = rng.random((9, 30)), rng.random((9, 30)), rng.random((17, 30))
    gallery = gallery_evidence(image, text, others)
    own, theirs = oracle.peaks(image, text, others)
    np.testing.assert_allclose(gallery.own, own)
    np.testing.assert_allclose(gallery.others, theirs)
    other = Evidence(rng.random(9), rng.random((9, 17)))
    expected = oracle.trust([own, other.own], [theirs, other.others], low)
    np.testing.assert_allclose(text_trust([gallery, other], low), expected, atol=1e-12)


def test_a_text_that_is_among_the_others_counts_half():
    evidence = Evidence(np.array([2.0]), np.array([[1.0, 2.0, 3.0, 4.0]]))
    assert text_trust([evidence], 0.0).tolist() == [0.375]


def test_captions_tell_whose_text_it_is():
    rng = np.random.default_rng(5)
    shape, shared = rng.normal(size=(50, 16)), 10 * rng.normal(size=16)
    caption, text = shape + shared + 0.3 * rng.normal(size=(50, 16)), shape - shared + rng.normal(size=(50, 16))
    evidence = caption_evidence(text, text, caption)
    centred = lambda rows: rows - rows.mean(axis=0)
    a, b = centred(caption)[7], centred(text)
    cosines = [float(a @ row / np.linalg.norm(a) / np.linalg.norm(row)) for row in b]
    np.testing.assert_allclose(evidence.others[7], cosines)
    np.testing.assert_allclose(evidence.own[7], cosines[7])
    assert text_trust([evidence], 0.0).mean() > 0.9
    wrong = caption_evidence(np.roll(text, 9, axis=0), text, caption)
    assert text_trust([wrong], 0.0).mean() == pytest.approx(0.5, abs=0.1)


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(2)
    image, others = rng.random((23, 30)), rng.random((5, 30))
    whole = other_peaks(image, others)
    monkeypatch.setattr("tvilfm_plugin.analysis.fallback._CHUNK_ELEMENTS", 300)
    np.testing.assert_array_equal(other_peaks(image, others), whole)


def test_wrong_texts_are_trusted_as_little_as_promised_and_fitting_ones_much():
    image, text, *_ = world(people=200)
    wrong = np.roll(text, 77, axis=0)
    assert trust_in(image, text, text).mean() > 0.85
    assert trust_in(image, wrong, text).mean() == pytest.approx(0.25, abs=0.05)  # (1 - low) / 2
    assert trust_in(image, wrong, text, low=0.8).mean() == pytest.approx(0.1, abs=0.04)


def test_fall_back_gains_with_bad_text_and_costs_little_with_good():
    image, text, query, gallery = world()
    wrong = np.roll(text, 21, axis=0)
    blind = lambda said: mean_ap(image + said, query, gallery)
    safe = lambda said: mean_ap(
        fall_back({Modality.IR: image, Modality.TEXT: said}, trust_in(image, said, text)), query, gallery
    )
    assert safe(text) > blind(text) - 0.03
    assert safe(wrong) > blind(wrong) + 0.1


def test_full_trust_is_the_ensemble_and_none_the_image():
    rng = np.random.default_rng(3)
    similar = {m: rng.random((4, 6)) for m in (Modality.IR, Modality.TEXT, Modality.FUSION)}
    np.testing.assert_allclose(fall_back(similar, np.ones(4)), sum(similar.values()))
    np.testing.assert_array_equal(fall_back(similar, np.zeros(4)), similar[Modality.IR])
    assert fall_back(similar, np.zeros(4)) is not similar[Modality.IR]


def test_constant_scores_say_nothing():
    assert standardised(np.full((2, 3), 0.7)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_wrong_arguments_are_refused():
    image = np.random.default_rng(4).random((3, 5))
    with pytest.raises(ValueError, match="one gallery"):
        other_peaks(image, np.ones((2, 4)))
    with pytest.raises(ValueError, match="there are none"):
        other_peaks(image, np.ones((0, 5)))
    with pytest.raises(ValueError, match="got none"):
        text_trust([])
    with pytest.raises(ValueError, match="quantile"):
        trust_in(image, image, image, low=1.0)
    with pytest.raises(ValueError, match="2 queries"):
        text_trust([Evidence(np.ones(2), np.ones((3, 4)))])
    with pytest.raises(ValueError, match="same queries"):
        text_trust([Evidence(np.ones(3), np.ones((3, 4))), Evidence(np.ones(3), np.ones((3, 5)))])
    with pytest.raises(ValueError, match="add 'ir'"):
        fall_back({Modality.TEXT: image}, np.ones(3))
    with pytest.raises(ValueError, match="One weight"):
        fall_back({Modality.IR: image}, np.array([0.5, 2.0, 0.0]))
