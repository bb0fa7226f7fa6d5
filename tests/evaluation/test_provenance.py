import hashlib
import json

import pytest

from tvilfm_plugin.data.datasets.listing import population
from tvilfm_plugin.evaluation.provenance import LeakError, Provenance, TrainingSet
from tvilfm_plugin.synthetic.plans import Spec, spec_of

SPLIT_1 = TrainingSet("regdb", 1, (1, 3, 5))


def test_the_hash_is_of_data_set_split_and_identities():
    text = json.dumps(["regdb", 1, [1, 3, 5]], separators=(",", ":"))
    assert SPLIT_1.sha256 == hashlib.sha256(text.encode()).hexdigest()
    hashes = {SPLIT_1.sha256, *(one.sha256 for one in (SPLIT_1._replace(trial=2), SPLIT_1._replace(identities=(1, 3))))}
    assert len(hashes) == 3 and SPLIT_1._replace(identities=(5, 1, 3)).sha256 == SPLIT_1.sha256


def test_tested_training_persons_are_refused():
    record = Provenance((SPLIT_1,))
    record.check_unseen("regdb", 1, {2, 4, 6})
    record.check_unseen("sysu", 1, {1, 3, 5})
    with pytest.raises(LeakError, match=r"2 of the 3 identities \(1, 5\) that split 2 of regdb.*split 1.*ten splits need ten"):
        record.check_unseen("regdb", 2, [1, 5, 6])


def test_who_was_trained_on_once_stays_trained_on():
    second = Provenance((SPLIT_1._replace(trial=2, identities=(2, 4)),), "last epoch")
    second.add(Provenance((SPLIT_1,), "epoch 3 of 9"))
    second.add(Provenance((SPLIT_1,)))
    assert [one.trial for one in second.trained_on] == [2, 1] and second.epoch_rule == "last epoch"
    again = Provenance((SPLIT_1._replace(trial=3),))
    again.load_state_dict(json.loads(json.dumps(second.state_dict())))
    assert [one.trial for one in again.trained_on] == [3, 2, 1] and again.epoch_rule == "last epoch"
    assert again.trained_on[2] == SPLIT_1


def test_a_changed_record_is_refused():
    state = Provenance((SPLIT_1,)).state_dict()
    state["trained_on"][0]["identities"] = [1, 3]
    with pytest.raises(ValueError, match="the file was changed"):
        Provenance().load_state_dict(state)


def test_synthetic_people_are_known_by_their_draw(tmp_path):
    def drawn(layout, seed):
        folder = tmp_path / f"{layout}{seed}"
        folder.mkdir()
        (folder / "synthetic.json").write_text(json.dumps(spec_of(Spec(layout, ids=8, test_ids=4, seed=seed))))
        return population(layout, str(folder))

    others, same = drawn("sysu", 1000), drawn("llcm", 0)
    assert drawn("sysu", 0) == same != others and population("sysu", str(tmp_path)) == "sysu"
    record = Provenance((TrainingSet(others, 1, (1, 2)),))
    record.check_unseen(same, 1, {1, 2})
    record.check_unseen("sysu", 1, {1, 2})
    with pytest.raises(LeakError, match="of synthetic people, seed 1000, ids 8, test_ids 4 tests"):
        record.check_unseen(others, 1, {2, 3})
