"""Types of gallery index: build time, memory, milliseconds per query, recall@10 and Rank-1 against flat.

    python -m benchmarks.index --count 100000 --out index.jsonl        # --kinds flat int8 ...; --smoke for small sizes

Features are invented: identities with ten images each in a latent space of 128 dimensions, mapped to 2,048; a query is a
much noisier view of an identity, as an infrared one is. Everything is made, stored and indexed in blocks; each index is built,
saved, and searched from its file.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from tvilfm_plugin.retrieval.approximation import exact_neighbours
from tvilfm_plugin.retrieval.fingerprint import Fingerprint
from tvilfm_plugin.retrieval.index import GalleryIndex
from tvilfm_plugin.retrieval.index_file import FlatFile
from tvilfm_plugin.retrieval.kinds import KINDS
from tvilfm_plugin.retrieval.records import UNKNOWN, Records

DIM, LATENT, PER_IDENTITY = 2048, 128, 10
IMAGE_NOISE, QUERY_NOISE = 0.5, 2.0
BLOCK = 20_000
TOP = 10


class World:
    """Identities in a latent space and the map from there to features."""

    def __init__(self, count: int, dim: int, seed: int = 0) -> None:
        """Args:
        count: gallery images.
        dim: D.
        """
        rng = np.random.default_rng(seed)
        self.count, self.seed = count, seed
        self.identities = rng.standard_normal((-(-count // PER_IDENTITY), LATENT), dtype=np.float32)
        self.map = rng.standard_normal((LATENT, dim), dtype=np.float32) / np.sqrt(LATENT)

    def gallery(self) -> Iterator[np.ndarray]:
        """(n, D) unit vectors of the images in order: image i shows identity i // PER_IDENTITY."""
        for start in range(0, self.count, BLOCK):
            rows = np.arange(start, min(start + BLOCK, self.count))
            yield self._seen(rows // PER_IDENTITY, IMAGE_NOISE, np.random.default_rng([self.seed, 1, start]))

    def queries(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, D) queries of different identities, and (Q,) who they are."""
        rng = np.random.default_rng([self.seed, 2])
        pids = rng.choice(len(self.identities), count, replace=False)
        return self._seen(pids, QUERY_NOISE, rng), pids

    def _seen(self, pids: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
        latent = self.identities[pids] + noise * rng.standard_normal((len(pids), LATENT), dtype=np.float32)
        seen = latent @ self.map
        seen += 0.1 * noise * rng.standard_normal(seen.shape, dtype=np.float32)
        seen /= np.linalg.norm(seen, axis=1, keepdims=True)
        return seen


def own_memory() -> int:
    """Bytes of this process that no file backs (Linux)."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def write_flat(world: World, path: Path, dim: int) -> tuple[Fingerprint, Records, np.ndarray]:
    """The gallery as a flat index file, block by block; its (N, D) vectors are mapped into memory."""
    fingerprint = Fingerprint(weights="benchmark", dim=dim, normalisation="L2", preprocessing="none")
    pids = np.arange(world.count) // PER_IDENTITY
    records = Records([str(n) for n in range(world.count)], pids, np.full(len(pids), UNKNOWN), np.full(len(pids), np.nan))
    with open(path, "w+b") as file:
        flat = FlatFile(file, dim)
        blocks = -(-world.count // BLOCK)
        for block in tqdm(world.gallery(), desc="Inventing features", unit="block", total=blocks, disable=None):
            flat.append(block)
        flat.finish(fingerprint, records)
        return fingerprint, records, flat.vectors(world.count)


def measure(
    kind: str,
    path: Path,
    fingerprint: Fingerprint,
    records: Records,
    vectors: np.ndarray,
    asked: np.ndarray,
    pids: np.ndarray,
    exact: np.ndarray,
) -> dict[str, Any]:
    """One line of the table.

    Args:
        path, vectors: the flat index file and its (N, D) vectors.
        asked, pids: (Q, D) queries and (Q,) who they are.
        exact: (Q, TOP) flat's answers, computed apart.
    """
    cpu, start = time.process_time(), time.perf_counter()
    if kind != "flat":
        flat, path = path, path.with_name(kind)
        GalleryIndex.build(vectors, records, fingerprint, kind, say=None, stored=flat).save(path)
    built, built_cpu = time.perf_counter() - start, time.process_time() - cpu
    before = own_memory()
    index = GalleryIndex.load(path)
    found = index.search(asked, TOP)[1]
    memory = own_memory() - before
    single = asked[:20]
    index.search(single[:1], TOP)
    cpu, start = time.process_time(), time.perf_counter()
    for query in single:
        index.search(query[None], TOP)
    spent, spent_cpu = time.perf_counter() - start, time.process_time() - cpu
    found_pids = found // PER_IDENTITY
    return {
        "kind": kind,
        "count": len(records),
        "dim": fingerprint.dim,
        "build_s": round(built, 2),
        "build_cpu_s": round(built_cpu, 2),
        "bytes": path.stat().st_size,
        "memory": memory,
        "ms_per_query": round(1000 * spent / len(single), 3),
        "cpu_ms_per_query": round(1000 * spent_cpu / len(single), 3),
        "recall": float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(found.tolist(), exact.tolist(), strict=True)])),
        "rank1": float((found_pids[:, 0] == pids).mean()),
        "flat_rank1": float((exact[:, 0] // PER_IDENTITY == pids).mean()),
        "queries": len(asked),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""
    headers = ("images", "index", "build, CPU s", "file, GB", "memory, GB", "CPU ms per query", "recall@10", "Rank-1 (flat)")
    rows = [
        (
            f"{line['count']:,}",
            line["kind"],
            f"{line['build_cpu_s']:.0f}",
            f"{line['bytes'] / 1e9:.2f}",
            f"{line['memory'] / 1e9:.2f}",
            f"{line['cpu_ms_per_query']:.1f}",
            f"{line['recall']:.3f}",
            f"{100 * line['rank1']:.1f} ({100 * line['flat_rank1']:.1f})",
        )
        for line in lines
    ]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="gallery images (default 100,000)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--queries", type=int, default=200, help="for recall and Rank-1; the first 20 are timed one by one")
    parser.add_argument("--threads", type=int, default=1, help="of faiss (default 1)")
    parser.add_argument("--folder", type=Path, help="where the vectors lie meanwhile: 8 KB per image (default: the system's)")
    parser.add_argument("--out", type=Path, help="append every line as JSON as soon as it is measured")
    parser.add_argument("--smoke", action="store_true", help="4,000 images of 64 numbers")
    args = parser.parse_args(argv)
    count, dim = (4_000, 64) if args.smoke else (args.count, DIM)
    faiss.omp_set_num_threads(args.threads)
    world, lines = World(count, dim), []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "flat.index"
        fingerprint, records, vectors = write_flat(world, path, dim)
        asked, pids = world.queries(min(args.queries, len(world.identities)))
        exact = exact_neighbours(asked, vectors, TOP)
        for kind in args.kinds:
            lines.append(measure(kind, path, fingerprint, records, vectors, asked, pids, exact))
            print(json.dumps(lines[-1]), flush=True)
            if args.out:
                with open(args.out, "a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    print(f"\n{table(lines)}")
    return lines


if __name__ == "__main__":
    main()
