"""People who are in no benchmark: what the demo's stand-ins for published pre-trained weights are learned from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from tvilfm_plugin.files.writing import atomic_file, make_folder, write_text
from tvilfm_plugin.synthetic.people import Person, draw_people
from tvilfm_plugin.synthetic.photos import in_processes
from tvilfm_plugin.synthetic.writer import Spec, draw_identities, looks_in


def benchmark_looks(folders: Iterable[str]) -> set[tuple[object, ...]]:
    """`Person.looks` of the people of these benchmarks, and of the default one, whom nothing may be learned from."""
    known = {looks for folder in folders for looks in looks_in(Path(folder))}
    return known | {person.looks for person in draw_identities(Spec("sysu")).people.values()}


def draw_strangers(
    people: int, held_out: int, seed: int, avoid: AbstractSet[tuple[object, ...]] = frozenset()
) -> tuple[list[Person], list[Person]]:
    """People to learn from and others to be measured on: no two alike, none of them in the benchmark.

    Args:
        people: how many to learn from, at most.
        held_out: how many to be measured on, at most.
        seed: a benchmark of the same seed shares no draw.
        avoid: `Person.looks` of the benchmark's people, who are left out.
    """
    seed += 1_000_003
    others = [person for person in draw_people(held_out, seed) if person.looks not in avoid]
    learners = [person for person in draw_people(people, seed, avoid=others) if person.looks not in avoid]
    known = {person.looks for person in learners} & (avoid | {person.looks for person in others})
    if known:
        raise RuntimeError(f"{len(known)} people are in two of: learned from, measured on, the benchmark.")
    return learners, others


def picture_people(
    take: Callable[[list[tuple[int, Person]]], Any], people: Sequence[Person], name: str, workers: int, progress: bool
) -> list[Any]:
    """What `take` makes of people with their numbers, fifty at a time, in their order, shared by up to `workers` processes."""
    numbered = list(enumerate(people))
    chunks = [numbered[n : n + 50] for n in range(0, len(people), 50)]
    made = []
    with tqdm(total=len(people), desc=f"drawing people to {name}", disable=None if progress else True) as bar:
        for chunk, taken in zip(chunks, in_processes(take, chunks, workers), strict=True):
            made.append(taken)
            bar.update(len(chunk))
    return made


def earlier_facts(out: Path, identity: Mapping[str, Any], mark: str) -> dict[str, Any] | None:
    """The facts beside `out` if it was made from the same `identity`; None if it is to be made.

    Args:
        mark: key that says who made it. A file without it is somebody's own and must not be replaced.
    """
    if not out.is_file():
        return None
    facts_file = out.with_suffix(".json")
    facts: dict[str, Any] = json.loads(facts_file.read_text(encoding="utf-8")) if facts_file.is_file() else {}
    # As JSON has it, where a tuple is a list.
    if facts.get("spec") == json.loads(json.dumps(identity)):
        return facts
    if not facts.get(mark):
        raise FileExistsError(f"{out} exists and was not written by this tool. Give another --out, or remove it first.")
    return None


def write_with_facts(out: Path, save: Callable[[IO[bytes]], Any], facts: Mapping[str, Any]) -> None:
    """`save` the weights into `out`, and the facts beside them as .json; both appear under their names when complete."""
    make_folder(out.parent)
    with atomic_file(out) as file:
        save(file)
    write_text(out.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
