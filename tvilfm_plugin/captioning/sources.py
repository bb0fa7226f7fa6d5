"""The images of a data set, by their paths relative to its root: the names that captions are filed under."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tvilfm_plugin.files.pictures import Window
from tvilfm_plugin.modality import Modality

SPLITS = ("train", "test", "all")


class Source(NamedTuple):
    """One image: the key of its caption, its file, its person, and its split ("train" or "test")."""

    key: str
    path: str
    pid: int
    split: str


@dataclass(frozen=True)
class SourceSet:
    """The images of one modality.

    Attributes:
        sources: sorted by key.
        relative: strips what precedes a key in other people's paths.
        known: those of all splits, whose captions share the files; () = `sources`.
        window: what of an infrared image with more than 8 bits becomes grey; None refuses such images.
    """

    name: str
    folder: Path
    modality: Modality
    sources: tuple[Source, ...]
    relative: Callable[[str], str]
    known: tuple[Source, ...] = ()
    window: Window | None = None

    @property
    def text_folder(self) -> Path:
        """Where the loaders look first for this modality's captions."""
        from tvilfm_plugin.data.datasets.listing import caption_folders

        return caption_folders(str(self.folder), self.modality)[0]

    @property
    def text_name(self) -> str:
        """What the released files of this modality are called, e.g. "Blip_RGB"."""
        return self.text_folder.name


def find_sources(
    dataset: str, root: str, modality: Modality, *, folder: str = "", split: str = "all", trial: int = 1
) -> SourceSet:
    """The images of one modality of "sysu", "regdb" or "llcm", or of own data ("table", "folder"); `trial` is RegDB's split."""
    # The data sets are fast-reid's; captioning itself does without it.
    from tvilfm_plugin.data.datasets.base import TriDataset
    from tvilfm_plugin.data.datasets.check import DATASETS
    from tvilfm_plugin.data.datasets.own import OWN

    kinds: dict[str, type[TriDataset]] = {**DATASETS, **OWN}
    if dataset not in kinds:
        raise ValueError(f"Unknown data set {dataset!r}; choices are {', '.join(kinds)}.")
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choices are {', '.join(SPLITS)}.")
    kind = kinds[dataset]
    home = kind.find_folder(root, folder)
    relative = kind.relative_in(home)
    found: dict[str, Source] = {}
    for part in ("train", "test"):
        lists = kind.read_split(home, part, trial)
        for item in lists.rgb if modality is Modality.RGB else lists.ir:
            key = relative(item.path)
            found.setdefault(key, Source(key, item.path, kind.person(item), part))
    known = tuple(found[key] for key in sorted(found))
    chosen = tuple(source for source in known if split in ("all", source.split))
    if not chosen:
        raise FileNotFoundError(f"{kind.name} in {home} has no {modality.value} images in split {split!r}.")
    return SourceSet(kind.name, Path(home), modality, chosen, relative, known)
