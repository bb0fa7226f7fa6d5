"""Stored features: what was computed, whatever interrupts it."""

import pickle
import threading

import numpy as np
import pytest
import torch

from tvilfm_plugin.data import feature_bank
from tvilfm_plugin.data.feature_bank import FeatureBank, filled_bank, view_rng
from tvilfm_plugin.modality import Modality

SHAPE = (10, 3, 4)
ROWS = np.random.RandomState(0).randn(*SHAPE).astype(np.float32)


class Features:
    """Rows of ROWS; raises at image `until`."""

    def __init__(self, until=99):
        self.asked, self.until = [], until

    def __call__(self, first, end):
        if first >= self.until:
            raise KeyboardInterrupt
        self.asked.append((first, end))
        return ROWS[first:end]


def everything(bank):
    return torch.stack([torch.stack([bank[n, v] for v in range(SHAPE[1])]) for n in range(SHAPE[0])])


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 1e-3)])
def test_a_bank_holds_the_features_and_is_filled_once(tmp_path, dtype, error):
    first, second = Features(), Features()
    bank = filled_bank(tmp_path / "new" / "b.npy", SHAPE, dtype, first, chunk=4)
    assert first.asked == [(0, 4), (4, 8), (8, 10)]
    again = filled_bank(tmp_path / "new" / "b.npy", SHAPE, dtype, second, chunk=4)
    assert not second.asked
    for one in (bank, again, pickle.loads(pickle.dumps(bank))):
        assert one[1, 2].dtype == torch.float32 and one.shape == SHAPE
        np.testing.assert_allclose(everything(one), ROWS, rtol=error, atol=error)
    assert np.load(tmp_path / "new" / "b.npy").dtype == dtype


@pytest.mark.parametrize("torn", [0, 7, 100])
def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path, torn):
    path = tmp_path / "b.npy"
    with pytest.raises(KeyboardInterrupt):
        filled_bank(path, SHAPE, "float32", Features(until=4), chunk=4)
    assert not path.exists()
    part = path.with_suffix(".part")
    part.write_bytes(part.read_bytes() + b"x" * torn)  # half an image, or two and a bit: not whole, or not ours
    rest = Features()
    if torn == 100:
        part.write_bytes(part.read_bytes()[:-101])
    bank = filled_bank(path, SHAPE, "float32", rest, chunk=4)
    assert rest.asked[0][0] == (3 if torn == 100 else 4)
    np.testing.assert_array_equal(everything(bank), ROWS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.lock", "b.npy"]


def test_who_comes_second_waits_for_the_first(tmp_path):
    gate, began, second = threading.Event(), threading.Event(), Features()

    def slow(first, end):
        began.set()
        gate.wait(20)
        return ROWS[first:end]

    banks = []
    one = threading.Thread(target=lambda: banks.append(filled_bank(tmp_path / "b.npy", SHAPE, "float32", slow)))
    two = threading.Thread(target=lambda: banks.append(filled_bank(tmp_path / "b.npy", SHAPE, "float32", second)))
    one.start()
    assert began.wait(20)
    two.start()
    gate.set()
    one.join(20)
    two.join(20)
    assert len(banks) == 2 and not second.asked
    np.testing.assert_array_equal(everything(banks[1]), ROWS)


def test_what_cannot_be_stored_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "b.npy"
    with pytest.raises(ValueError, match="float32 or float16.*BANK.DTYPE.*'int8'"):
        filled_bank(path, SHAPE, "int8", Features())
    with pytest.raises(ValueError, match=r"Images 0\.\.9 gave features.*not finite"):
        filled_bank(path, SHAPE, "float32", lambda first, end: np.full_like(ROWS, np.nan))
    with pytest.raises(ValueError, match="overflow float16; set TVILFM.BANK.DTYPE float32"):
        filled_bank(path, SHAPE, "float16", lambda first, end: ROWS * 1e6)
    monkeypatch.setattr(feature_bank.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(OSError, match="needs 0.00 GB more.*BANK.VIEWS.*DATASETS.CACHE"):
        filled_bank(path, SHAPE, "float32", Features())
    np.save(path, ROWS[:5])
    with pytest.raises(ValueError, match=r"holds \(5, 3, 4\) numbers instead of \(10, 3, 4\). Delete it"):
        filled_bank(path, SHAPE, "float32", Features())
    assert FeatureBank(path).shape == (5, 3, 4)
    whole = path.read_bytes()
    for damaged in (b"", whole[:60], whole[:-1], b"x" + whole[1:], whole.replace(b"'descr'", b"'descr")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"The feature bank .*b.npy is damaged \(.*\). Delete it: it is computed again."):
            filled_bank(path, SHAPE, "float32", Features())


def test_a_view_has_random_numbers_of_its_own():
    which = [(m, image, view) for m in (Modality.RGB, Modality.IR) for image in (1, 11) for view in (1, 11)]
    assert len({view_rng(*one).random() for one in which}) == len(which)
    # The same on every machine: banks are shared.
    assert view_rng(Modality.RGB, 3, 1).random() == 0.9269716862603193
