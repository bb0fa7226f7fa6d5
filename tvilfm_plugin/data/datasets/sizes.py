"""How large a data set is, as the tables of the log."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.items import EvalSetting, Item
from tvilfm_plugin.modality import Modality


def train_table(
    images: Mapping[Modality, Sequence[Item]], captions: Mapping[Modality, CaptionBank], relative: Callable[[str], str]
) -> str:
    """The training split: people, images, cameras, captions and rephrases of each kind; captions go by `relative(path)`."""
    rows = []
    for modality, items in images.items():
        bank = captions.get(modality, CaptionBank({}, ""))
        found = [bank[path] for item in items if (path := relative(item.path)) in bank]
        rephrases = sum(bool(caption.rephrase) for caption in found)
        rows.append([f"train {modality.value}", *_count(items), len(found), rephrases])
    return _table(rows, ["subset", "# ids", "# images", "# cameras", "# captions", "# rephrases"])


def test_table(
    query: tuple[Modality, Sequence[Item]], gallery: tuple[Modality, Sequence[Item]], settings: Sequence[EvalSetting]
) -> str:
    """The queries, every setting's first gallery, and the union of all draws."""
    rows: list[list[Any]] = [[f"query {query[0].value}", *_count(query[1]), ""]]
    name = f"gallery {gallery[0].value}"
    for setting in settings:
        first = [gallery[1][index] for index in setting.draws[0]]
        rows.append([f"{name}, {setting.name}", *_count(first), len(setting.draws)])
    rows.append([f"{name}, all draws", *_count(gallery[1]), ""])
    return _table(rows, ["subset", "# ids", "# images", "# cameras", "# draws"])


def _count(items: Sequence[Item]) -> list[int]:
    return [len({item.pid for item in items}), len(items), len({item.camid for item in items})]


def _table(rows: list[list[Any]], headers: list[str]) -> str:
    return tabulate(rows, headers=headers, tablefmt="pipe", numalign="left")
