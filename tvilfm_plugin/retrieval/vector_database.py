"""Past one machine: the same gallery interface on Milvus, by its official client.

Milvus, because the code that speaks to a local `milvus-lite server` speaks unchanged to a distributed cluster, it has exact
(FLAT) indexes beside approximate ones, takes vectors of 2,048 numbers and filters by fields while it searches. (pgvector
indexes at most 2,000 dimensions.) Needs `pip install pymilvus`; neither torch nor the host.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from tvilfm_plugin.retrieval.fingerprint import Fingerprint, FingerprintError
from tvilfm_plugin.retrieval.records import EVERYTHING, UNKNOWN, Filter, Record

# Milvus numbers have no NaN: this stands for an unknown time.
NO_TIME = -1e300
PATH_LENGTH = 4096
BATCH = 500
PROPERTY = "fingerprint"


class DatabaseGallery:
    """A collection of a Milvus server as a gallery, stored with its `fingerprint`; methods as of `GalleryIndex`."""

    def __init__(
        self, uri: str, collection: str, fingerprint: Fingerprint, *, index_type: str = "FLAT", token: str = ""
    ) -> None:
        """Open a collection, or make it where there is none.

        Args:
            uri: e.g. "http://127.0.0.1:19530".
            collection: its name: letters, digits and underscores.
            fingerprint: of the model that will search; a collection of another one is refused.
            index_type: of Milvus: FLAT is exact; HNSW, IVF_FLAT, ... are not, and no evaluation uses them.
            token: "user:password", for servers that ask for it.
        """
        try:
            from pymilvus import DataType, MilvusClient
        except ImportError:
            raise ImportError("A gallery on a vector database needs its client: pip install pymilvus") from None
        self.fingerprint = fingerprint
        self.collection = collection
        self.client: Any = MilvusClient(uri=uri, token=token)
        if self.client.has_collection(collection):
            self._check()
        else:
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            # The client writes keys into an expression without quoting them: a path with an apostrophe would break it.
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
            schema.add_field("path", DataType.VARCHAR, max_length=PATH_LENGTH)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=fingerprint.dim)
            schema.add_field("pid", DataType.INT64)
            schema.add_field("camid", DataType.INT64)
            schema.add_field("time", DataType.DOUBLE)
            index = self.client.prepare_index_params()
            index.add_index("vector", index_type=index_type, metric_type="IP", params={})
            self.client.create_collection(
                collection,
                schema=schema,
                index_params=index,
                consistency_level="Strong",
                properties={PROPERTY: json.dumps(fingerprint.to_dict())},
            )
        self.client.load_collection(collection)

    def __len__(self) -> int:
        (row,) = self.client.query(self.collection, filter="", output_fields=["count(*)"])
        return int(row["count(*)"])

    def add(self, vectors: np.ndarray, records: Sequence[Record]) -> None:
        """Add (n, D) unit vectors and their records; raises, before anything is added, for a path that is there."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.shape != (len(records), self.fingerprint.dim):
            raise ValueError(f"{len(records)} records, but vectors of shape {vectors.shape} for D = {self.fingerprint.dim}.")
        if not (np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3).all():
            raise ValueError("Only unit vectors can be added: divide them by their length (L2).")
        there = self._present([record.path for record in records])
        if there or len({record.path for record in records}) < len(records):
            example = f", e.g. {min(there)!r}" if there else ""
            raise ValueError(f"A path names one image; {len(there)} of these are there already{example}.")
        rows = [
            {
                "key": _key(record.path),
                "path": record.path,
                "vector": vector,
                "pid": UNKNOWN if record.pid is None else record.pid,
                "camid": UNKNOWN if record.camid is None else record.camid,
                "time": NO_TIME if record.time is None else record.time,
            }
            for record, vector in zip(records, vectors, strict=True)
        ]
        for start in range(0, len(rows), BATCH):
            self.client.insert(self.collection, rows[start : start + BATCH])

    def remove(self, paths: Collection[str]) -> int:
        """Take images out, by path; raises, before anything is removed, for a path that is not there."""
        wanted = sorted(set(paths))
        if unknown := set(wanted) - self._present(wanted):
            raise KeyError(f"{len(unknown)} of {len(wanted)} paths are not there, e.g. {min(unknown)!r}: nothing was removed.")
        for start in range(0, len(wanted), BATCH):
            self.client.delete(self.collection, ids=[_key(path) for path in wanted[start : start + BATCH]])
        return len(wanted)

    def nearest(self, query: np.ndarray, top: int, allowed: Filter = EVERYTHING) -> tuple[list[Record], np.ndarray]:
        """See `hits.Index`. Equal images come in the order of their paths."""
        (found,) = self.client.search(
            self.collection,
            data=[np.asarray(query, dtype=np.float32)],
            anns_field="vector",
            limit=top,
            filter=_expression(allowed),
            output_fields=["path", "pid", "camid", "time", "vector"],
            search_params={"metric_type": "IP"},
        )
        found = sorted(found, key=lambda hit: (-hit["distance"], hit["entity"]["path"]))
        vectors = np.array([hit["entity"]["vector"] for hit in found], dtype=np.float32)
        return [_record(hit["entity"]) for hit in found], vectors.reshape(-1, self.fingerprint.dim)

    def _present(self, paths: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(paths), BATCH):
            keys = [_key(path) for path in paths[start : start + BATCH]]
            rows = self.client.get(self.collection, ids=keys, output_fields=["path"])
            found |= {row["path"] for row in rows}
        return found

    def _check(self) -> None:
        described = self.client.describe_collection(self.collection)["properties"].get(PROPERTY, "")
        try:
            stored = Fingerprint.model_validate_json(described)
        except ValueError:
            raise FingerprintError(
                f"The collection {self.collection!r} says nothing of the model that made it; choose another name."
            ) from None
        stored.check(self.fingerprint, f"The collection {self.collection!r}")


def _key(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def _expression(allowed: Filter) -> str:
    """A filter in Milvus's language; it holds numbers only."""
    parts = []
    if allowed.cameras is not None:
        parts.append(f"camid in [{', '.join(str(int(camera)) for camera in allowed.cameras)}]")
    if allowed.times is not None:
        first, last = allowed.times
        parts.append(f"time > {NO_TIME / 2}")
        parts += [f"time >= {float(first)!r}"] if first is not None else []
        parts += [f"time <= {float(last)!r}"] if last is not None else []
    return " and ".join(parts)


def _record(row: dict[str, Any]) -> Record:
    return Record(
        row["path"],
        None if row["pid"] == UNKNOWN else int(row["pid"]),
        None if row["camid"] == UNKNOWN else int(row["camid"]),
        None if row["time"] <= NO_TIME / 2 else float(row["time"]),
    )
