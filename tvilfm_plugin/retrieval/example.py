"""The example that comes with the plugin: pictures of synthetic people whom the shipped model never saw."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tvilfm_plugin.files.json import expect_object, read_json
from tvilfm_plugin.files.shipped import PRETRAINED
from tvilfm_plugin.retrieval.hits import SearchResult
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.searcher import Searcher

PICTURES = PRETRAINED / "example" / "pictures"
LIST = "example.json"
KINDS = ("infrared alone", "words alone", "both")


class ExampleQuery(NamedTuple):
    """An infrared picture, what a witness says, what the picture itself shows in words, and whom it shows."""

    path: str
    text: str
    infrared_text: str
    person: int


class ExampleSet(NamedTuple):
    """A gallery of visible pictures, queries, and what there is to say of them."""

    gallery: list[Record]
    queries: list[ExampleQuery]
    title: str


def example_set(folder: str | Path = PICTURES) -> ExampleSet:
    """The example's pictures and queries; `benchmarks.example` writes them."""
    folder = Path(folder)
    listed = expect_object(read_json(folder / LIST), str(folder / LIST))
    gallery = [Record(str(folder / one["path"]), one["pid"], one["camid"]) for one in listed["gallery"]]
    queries = [ExampleQuery(str(folder / path), *rest) for path, *rest in listed["queries"]]
    return ExampleSet(gallery, queries, listed["title"])


def three_ways(retriever: Searcher, query: ExampleQuery, top: int = 10) -> dict[str, SearchResult]:
    """What a query finds by its infrared picture alone, by its words alone, and by both."""
    infrared, words, both = KINDS
    return {
        infrared: retriever.search(query.path, top=top),
        words: retriever.search(text=query.text, top=top),
        both: retriever.search(query.path, query.text, query.infrared_text, top=top),
    }


def ranks(retriever: Searcher, example: ExampleSet) -> list[dict[str, int]]:
    """Of every query and each of the `KINDS` the rank of the right person, from 1; the gallery must be embedded."""
    found = []
    for query in example.queries:
        results = three_ways(retriever, query, top=len(example.gallery))
        found.append({kind: 1 + [hit.pid for hit in one.hits].index(query.person) for kind, one in results.items()})
    return found


def telling(found: Sequence[dict[str, int]]) -> int:
    """The first query whom both together find, and neither alone; else the first whom both find; else the first."""
    infrared, words, both = KINDS
    right = [n for n, one in enumerate(found) if one[both] == 1]
    only_both = [n for n in right if found[n][infrared] > 1 and found[n][words] > 1]
    return next(iter([*only_both, *right, 0]))
