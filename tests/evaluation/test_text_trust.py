"""Trust in words: calibrated on training people, it tells fitting words from others, weighs the ensemble, and travels."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tvilfm_plugin.evaluation.ensemble import ensemble
from tvilfm_plugin.evaluation.text_trust import FILE, JOINT, TextTrust, agreement, attribute_odds, calibrate, trust
from tvilfm_plugin.modality import Modality

PEOPLE, EACH, DIM = 40, 3, 16
GARMENTS = ("shirt", "jacket", "sweater", "coat")


def world(seed, noise=1.0):
    """Pictures, words and captions of people; row n of each is the same person's."""
    rng = np.random.RandomState(seed)
    pids = np.repeat(np.arange(PEOPLE), EACH)
    who = rng.randn(PEOPLE, DIM)[pids]
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    infrared, text, caption = (unit(who + noise * rng.randn(*who.shape) + offset) for offset in (0.5, -1.0, 2.0))
    worn = rng.randint(len(GARMENTS), size=PEOPLE)[pids]
    said = [f"a man in a red {GARMENTS[g]} and jeans" for g in worn]
    seen = [f"a man in a {GARMENTS[g]} and jeans" for g in worn]
    return infrared, text, caption, said, seen, pids


@pytest.fixture(scope="module")
def learned():
    return calibrate(*world(0), weights="abc")


def wrong(rows, pids):
    """What the next person said."""
    taken = np.roll(np.arange(len(pids)), EACH)
    return rows[taken] if isinstance(rows, np.ndarray) else [rows[n] for n in taken]


def test_fitting_words_are_trusted_and_others_are_not(learned):
    infrared, text, caption, said, seen, pids = world(1)
    fit = learned.log_odds(infrared, text, caption, said, seen)
    unfit = learned.log_odds(infrared, wrong(text, pids), caption, wrong(said, pids), seen)
    assert np.median(fit) > 1 > -1 > np.median(unfit)
    assert trust(fit).mean() > 0.8 > 0.2 > trust(unfit).mean()
    assert trust(unfit, stakes=1).mean() < trust(unfit, stakes=4).mean()
    # All queries together know better how often words are wrong than each by itself.
    assert trust(fit, JOINT).mean() > trust(fit).mean() and trust(unfit, JOINT).mean() < trust(unfit).mean()


def test_a_picture_without_a_caption_is_judged_by_the_picture(learned):
    infrared, text, _, said, _, pids = world(2)
    fit, unfit = (learned.log_odds(infrared, t, None, said, said) for t in (text, wrong(text, pids)))
    assert np.median(fit) > 0 > np.median(unfit)


def test_without_words_there_is_nothing_to_trust(learned):
    infrared, text, caption, said, seen, _ = world(3)
    found = learned.log_odds(infrared, text, caption, ["", " ", *said[2:]], seen)
    assert trust(found)[:2].tolist() == [0, 0] and trust(found, JOINT)[:2].tolist() == [0, 0] and trust(found)[2:].min() > 0


def test_log_odds_of_one_query_by_hand(learned):
    infrared, text, caption, said, seen, _ = world(4)
    cosine = lambda a, b: float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))
    words = text[5] - np.array(learned.text)
    both = learned.both[0] + learned.both[1] * cosine(infrared[5] - np.array(learned.infrared), words)
    both += learned.both[2] * cosine(caption[5] - np.array(learned.caption), words)
    both += learned.both[3] * sum(learned.slots[slot][same] for slot, same in agreement(said[5], seen[5]).items())
    assert learned.log_odds(infrared, text, caption, said, seen)[5] == pytest.approx(both)


def test_agreement_leaves_colours_out_and_names_what_both_say():
    assert agreement("a man in a red jacket and jeans", "a man in a blue jacket and shorts with a bag") == {
        "sex": True, "upper": True, "lower": False,
    }  # fmt: skip
    assert attribute_odds("a man", "a woman", {"sex": (-2.0, 1.0)}) == -2 and attribute_odds("", "a man", {"sex": (1, 2)}) == 0


def test_it_travels_with_the_run(learned, tmp_path):
    learned.save(tmp_path / FILE)
    assert TextTrust.load(tmp_path / FILE, "abc") == learned
    older = {name: value for name, value in json.loads((tmp_path / FILE).read_text()).items() if name not in ("how", "stakes")}
    assert TextTrust.from_dict(older, "here") == learned
    assert TextTrust.load(tmp_path / FILE, "other weights") is None and TextTrust.load(tmp_path / "none", "abc") is None
    (tmp_path / FILE).write_text(json.dumps({"both": [1]}))
    with pytest.raises(ValueError, match="no calibration"):
        TextTrust.load(tmp_path / FILE, "abc")


def test_one_person_teaches_nothing():
    infrared, text, caption, said, seen, pids = world(0)
    with pytest.raises(ValueError, match="two or more"):
        calibrate(infrared, text, caption, said, seen, np.zeros_like(pids))


def test_the_ensemble_weighs_what_words_went_into():
    torch.manual_seed(0)
    queries = {m: torch.randn(3, 4) for m in (Modality.IR, Modality.TEXT, Modality.FUSION)}
    units = {m: F.normalize(rows, dim=1) for m, rows in queries.items()}
    members, weights = list(queries), torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    found = ensemble(queries, members, weights)
    for n, w in enumerate(weights.tolist()):
        by_hand = units[Modality.IR][n] + w * (units[Modality.TEXT][n] + units[Modality.FUSION][n])
        torch.testing.assert_close(found[n], by_hand)
    assert torch.equal(ensemble(queries, members, torch.ones(3)), ensemble(queries, members))
    alone = [Modality.TEXT, Modality.FUSION]
    assert torch.equal(ensemble(queries, alone, weights), ensemble(queries, alone))
