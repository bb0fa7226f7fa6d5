"""Rankings as TREC run and qrels files: what ranx, pytrec_eval and trec_eval read.

A run line is `QUERY Q0 IMAGE RANK SCORE TAG`, a qrels line `QUERY 0 IMAGE 1`. What a protocol ignores is in neither file, and a
query without a right image in its gallery is in none. AP and the share of queries whose first image is right are then the
protocol's; a CMC over identities (SYSU-MM01, LLCM) beyond R-1 is nothing that TREC counts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

import numpy as np

from tvilfm_plugin.analysis.trials import stored_trials
from tvilfm_plugin.evaluation.ranking import nearest
from tvilfm_plugin.evaluation.stored import StoredEvaluation
from tvilfm_plugin.files.places import travelling
from tvilfm_plugin.files.writing import atomic_file, make_folder


class TrecFiles(NamedTuple):
    """One text seed and gallery draw of a row: both files, the queries in them, and those left out, without a right image."""

    run: Path
    qrels: Path
    queries: int
    left_out: int


def write_trec(stored: StoredEvaluation, label: str, folder: Path) -> Iterator[TrecFiles]:
    """Write `seedS_drawD.run` and `.qrels` of every trial of a row, one after another."""
    card, search = stored.card(label), stored.searched(label)
    make_folder(folder)
    # Ids are paths below the data sets, without the blanks that would end them.
    queries, images = ([quote(travelling(path)) for path in paths] for paths in (search.query_paths, search.gallery_paths))
    tag = quote(f"tvilfm-{label.replace('/', '-')}-{card.weights_sha256[:12]}")
    for trial in stored_trials(stored, label):
        order, distance = nearest(trial.dist, search.query, trial.gallery, search.protocol, len(trial.gallery.pids))
        drawn = [images[column] for column in search.draws[card.setting][trial.draw]]
        right = (trial.gallery.pids[order] == search.query.pids[:, None]) & (order >= 0)
        counts = right.any(axis=1)
        name = folder / f"seed{trial.seed}_draw{trial.draw}.run"
        found = TrecFiles(name, name.with_suffix(".qrels"), int(counts.sum()), int((~counts).sum()))
        scores = falling(-distance)
        with atomic_file(found.run, "w", encoding="utf-8") as run, atomic_file(found.qrels, "w", encoding="utf-8") as qrels:
            for q in np.flatnonzero(counts):
                kept = order[q] >= 0
                _write_query(run, qrels, queries[q], [drawn[n] for n in order[q][kept]], scores[q][kept], right[q][kept], tag)
        yield found


def falling(scores: np.ndarray) -> np.ndarray:
    """(Q, g) similarities, best first, as float32 that fall strictly: the readers order ties each in their own way.

    A score that does not fall by itself becomes the next smaller number; they move in the last digit.
    """
    fallen = scores.astype(np.float32)
    for column in range(1, fallen.shape[1]):
        fallen[:, column] = np.minimum(fallen[:, column], np.nextafter(fallen[:, column - 1], np.float32(-np.inf)))
    return fallen


def _write_query(
    run: IO[str], qrels: IO[str], query: str, images: list[str], scores: np.ndarray, right: np.ndarray, tag: str
) -> None:
    run.writelines(
        f"{query} Q0 {image} {rank} {score:.9g} {tag}\n"
        for rank, (image, score) in enumerate(zip(images, scores, strict=True), start=1)
    )
    qrels.writelines(f"{query} 0 {image} 1\n" for image, same in zip(images, right, strict=True) if same)
