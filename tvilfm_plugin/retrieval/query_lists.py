"""Explicit query lists (ORBench) ranked with a model: everything is embedded once, each list is scored as any other row."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tvilfm_plugin.analysis.foreign import Galleries, Similarities, score
from tvilfm_plugin.data.text_person import ListQuery, QueryLists
from tvilfm_plugin.evaluation.protocols import REGDB, Labels
from tvilfm_plugin.evaluation.report import NO_TEXT
from tvilfm_plugin.modality import Modality

SOURCE = "query list"
BLOCK = 512


def rank_lists(
    retriever: Any, lists: QueryLists, names: Sequence[str] | None = None, both: bool = False
) -> tuple[str, dict[str, Any], list[str]]:
    """Report, plain values, and what was left out.

    A query of image and words is the sum of their unit vectors (Eq. 10 with the members ir and text: a list has no filter
    text, so fusion would be the infrared image once more).

    Args:
        retriever: a `Retriever`.
        names: of the lists; None: all that the model can ask.
        both: the infrared images of all lists stand in the gallery as well; lists of words alone are then ranked.
    """
    chosen, notes = _chosen(retriever.has_text, lists, names, both)
    infrared = dict.fromkeys((q.pid, q.infrared) for some in lists.queries.values() for q in some if q.infrared)
    units = _units(retriever, chosen)
    gallery = _images(retriever, [path for _, path in lists.gallery], Modality.RGB)
    pids = [pid for pid, _ in lists.gallery]
    if both:
        gallery = np.concatenate([gallery, _images(retriever, [path for _, path in infrared], Modality.IR)])
        pids += [pid for pid, _ in infrared]
    labels = Labels(np.array(pids), np.ones(len(pids), np.int64))
    card = {
        "dataset": "ORBench", "gallery_source": f"the published list{' and the infrared test images' if both else ''}",
        "reranking": "none", "preset": retriever.source.cfg.TVILFM.PRESET if retriever.source else "",
        "weights_sha256": retriever.fingerprint.weights, "data_sha256": _digest(lists),
    }  # fmt: skip
    sections: list[str] = []
    values: dict[str, Any] = {}
    for name, queries in chosen.items():
        asked = np.stack([sum(units[part] for part in (("ir", q.infrared), ("text", q.text)) if part[1]) for q in queries])
        mine = Labels(np.array([q.pid for q in queries]), np.zeros(len(queries), np.int64))
        found = Similarities(name=name, note="", dist=-(asked @ gallery.T), query=mine, gallery=labels)
        one = Galleries(setting=name, shots=0, rows=np.arange(len(queries)), columns=np.arange(len(pids)), query=mine,
                        gallery=labels, draws=[np.arange(len(pids))])  # fmt: skip
        direction = f"{name.replace('NIR', 'infrared').replace('TEXT', 'text').lower()}-to-{'both' if both else 'visible'}"
        source = SOURCE if any(q.text for q in queries) else NO_TEXT
        report, described = score(found, [one], REGDB, source, direction=direction, **card)
        sections.append(report)
        values |= described
    return "\n\n".join(sections), values, notes


def _chosen(
    has_text: bool, lists: QueryLists, names: Sequence[str] | None, both: bool
) -> tuple[dict[str, list[ListQuery]], list[str]]:
    """The lists that are ranked, and a sentence for each that is not."""
    if names and (unknown := [name for name in names if name not in lists.queries]):
        raise ValueError(f"{lists.folder} has no query list {', '.join(unknown)}; choices are {', '.join(lists.queries)}.")
    notes = [f"{name}: {count} queries by what no model here sees; left out" for name, count in lists.left_out.items()]
    chosen = {}
    for name in names or lists.queries:
        queries = lists.queries[name]
        words, images = any(query.text for query in queries), any(query.infrared for query in queries)
        if words and not has_text or both and images or not queries:
            why = "the gallery holds its images" if both and images else "the model has no text tower"
            notes.append(f"{name}: {len(queries)} queries left out, {why if queries else 'empty'}")
        else:
            chosen[name] = queries
    if not chosen:
        raise ValueError(f"No query list is left to rank: {'; '.join(notes)}.")
    return chosen, notes


def _units(retriever: Any, lists: dict[str, list[ListQuery]]) -> dict[tuple[str, str], np.ndarray]:
    """("ir", path) or ("text", sentence) -> (D,) unit vector of every distinct part of the queries."""
    images = list(dict.fromkeys(q.infrared for some in lists.values() for q in some if q.infrared))
    texts = list(dict.fromkeys(q.text for some in lists.values() for q in some if q.text))
    found: dict[tuple[str, str], np.ndarray] = {}
    if images:
        vectors = _images(retriever, images, Modality.IR)
        found |= {("ir", path): vector for path, vector in zip(images, vectors, strict=True)}
    if texts:
        found |= {("text", text): vector for text, vector in zip(texts, retriever.embed_texts(texts), strict=True)}
    return found


def _images(retriever: Any, paths: Sequence[str], modality: Modality) -> np.ndarray:
    """(N, D), a block of files in memory at a time."""
    blocks = [paths[n : n + BLOCK] for n in range(0, len(paths), BLOCK)]
    shown = tqdm(blocks, desc=f"Embedding {modality.value} images", unit="block", disable=None, leave=False)
    return np.concatenate([retriever.embed_images(block, modality) for block in shown])


def _digest(lists: QueryLists) -> str:
    """Of persons, file names and sentences of the gallery and of all lists, in order."""
    rows = [f"{pid} {path.removeprefix(str(lists.folder))}" for pid, path in lists.gallery]
    for name, queries in lists.queries.items():
        rows += [f"{name} {q.pid} {q.infrared.removeprefix(str(lists.folder))} {q.text}" for q in queries]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
