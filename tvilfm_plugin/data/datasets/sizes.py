"""How large a data set is, as the tables of the log."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from tvilfm_plugin.data.items import Item
from tvilfm_plugin.modality import Modality

if TYPE_CHECKING:
    from tvilfm_plugin.data.datasets.base import TriDataset


def train_table(data: "TriDataset") -> str:
    """The training split: identities, images, cameras, captions and rephrases of each kind."""
    rows = []
    for modality, items in ((Modality.RGB, data.train_rgb), (Modality.IR, data.train_ir)):
        texts = rephrases = 0
        if modality in data.captions:
            bank = data.captions[modality]
            found = [bank[path] for item in items if (path := data.relative(item.path)) in bank]
            texts, rephrases = len(found), sum(bool(caption.rephrase) for caption in found)
        pids, images, cameras = _count(items)
        rows.append([f"train {modality.value}", pids, images, cameras, texts, rephrases])
    return _table(rows, ["subset", "# ids", "# images", "# cameras", "# captions", "# rephrases"])


def test_table(data: "TriDataset") -> str:
    """The queries, every setting's first gallery, and the union of all draws."""
    rows: list[list[Any]] = [[f"query {data.query_modality.value}", *_count(data.query), ""]]
    gallery = f"gallery {data.gallery_modality.value}"
    for setting in data.settings:
        first = [data.gallery[index] for index in setting.draws[0]]
        rows.append([f"{gallery}, {setting.name}", *_count(first), len(setting.draws)])
    rows.append([f"{gallery}, all draws", *_count(data.gallery), ""])
    return _table(rows, ["subset", "# ids", "# images", "# cameras", "# draws"])


def _count(items: Sequence[Item]) -> list[int]:
    return [len({item.pid for item in items}), len(items), len({item.camid for item in items})]


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="pipe", numalign="left")
