"""People outside every benchmark, and the files that are learned from them."""

import json
from pathlib import Path
from typing import IO

import pytest

from tvilfm_plugin.synthetic.people import draw_people
from tvilfm_plugin.synthetic.photos import in_processes
from tvilfm_plugin.synthetic.strangers import (
    benchmark_looks,
    draw_strangers,
    earlier_facts,
    write_with_facts,
)
from tvilfm_plugin.synthetic.writer import Spec, draw_identities, make_synthetic


def test_nobody_of_the_benchmark_is_learned_from() -> None:
    learners, others = draw_strangers(12, 6, 7)
    assert len(learners) == 12 and len(others) == 6
    assert not {person.looks for person in learners} & {person.looks for person in others}
    known = {person.looks for person in learners[:3]} | {others[0].looks}
    fewer, rest = draw_strangers(12, 6, 7, known)
    assert not known & {person.looks for person in fewer + rest}
    benchmark = {person.looks for person in draw_people(80, 7)}
    assert not benchmark & {person.looks for person in learners + others}


def test_the_default_benchmark_is_always_kept_away_from(tmp_path: Path) -> None:
    spec = Spec("sysu", ids=12, test_ids=6, seed=3, height=48)
    default = {person.looks for person in draw_identities(Spec("sysu")).people.values()}
    assert benchmark_looks([]) == default
    folder = make_synthetic(spec, tmp_path / "other", progress=False)
    others = {person.looks for person in draw_identities(spec).people.values()}
    assert benchmark_looks([str(folder)]) == default | others and not others <= default


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_keep_the_order(workers: int) -> None:
    assert list(in_processes(str, [3, 1, 2], workers)) == ["3", "1", "2"]


def test_a_file_is_made_once_and_somebodys_own_is_kept(tmp_path: Path) -> None:
    out, identity = tmp_path / "new" / "weights.pt", {"size": (96, 48), "seed": 7}
    assert earlier_facts(out, identity, "mine") is None
    write_with_facts(out, lambda file: file.write(b"weights"), {"mine": True, "spec": identity, "held_out": 3})
    assert out.read_bytes() == b"weights" and sorted(p.name for p in out.parent.iterdir()) == ["weights.json", "weights.pt"]
    # A tuple is a list in the file.
    facts = earlier_facts(out, identity, "mine")
    assert facts is not None and facts["held_out"] == 3
    assert earlier_facts(out, {**identity, "seed": 8}, "mine") is None
    with pytest.raises(FileExistsError, match="not written by this tool. Give another --out, or remove it first"):
        earlier_facts(out, {**identity, "seed": 8}, "theirs")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    write_with_facts(out, lambda file: file.write(b"old"), {"a": 1})

    def fail(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_with_facts(out, fail, {"a": 2})
    assert out.read_bytes() == b"old" and json.loads(out.with_suffix(".json").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 2
