"""Self-check of a data set on disk: counts against the published ones, every missing file, every missing caption."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.datasets.base import Split, TriDataset
from tvilfm_plugin.data.datasets.listing import examples, missing_files, person_of, repeated
from tvilfm_plugin.data.datasets.llcm import TriLLCM
from tvilfm_plugin.data.datasets.regdb import TriRegDB
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
from tvilfm_plugin.data.items import gallery_groups
from tvilfm_plugin.files.pictures import DepthError, PictureError, Window, open_picture
from tvilfm_plugin.files.text import is_blank
from tvilfm_plugin.modality import Modality

DATASETS: dict[str, type[TriDataset]] = {"sysu": TriSYSUMM01, "regdb": TriRegDB, "llcm": TriLLCM}

# (split, what) -> published count. SYSU-MM01's published totals (30,071 visible, 15,792 infrared) exceed its published
# splits by images of persons in neither, so they are shown and not judged.
PUBLISHED: dict[str, dict[tuple[str, str], int]] = {
    "sysu": {
        ("train", "ids"): 395, ("train", "RGB"): 22_258, ("train", "IR"): 11_909,
        ("test", "ids"): 96, ("test", "IR"): 3_803, ("test", "gallery"): 301,
        ("total", "ids"): 491, ("total", "RGB"): 30_071, ("total", "IR"): 15_792, ("total", "texts"): 45_863,
    },
    "regdb": {
        ("train", "ids"): 206, ("train", "RGB"): 2_060, ("train", "IR"): 2_060,
        ("test", "ids"): 206, ("test", "RGB"): 2_060, ("test", "IR"): 2_060, ("test", "gallery"): 2_060,
        ("total", "ids"): 412, ("total", "RGB"): 4_120, ("total", "IR"): 4_120, ("total", "texts"): 8_240,
    },
    "llcm": {
        ("train", "ids"): 713, ("train", "RGB"): 16_946, ("train", "IR"): 13_975,
        ("test", "ids"): 351,
        ("total", "ids"): 1_064, ("total", "RGB"): 25_626, ("total", "IR"): 21_141, ("total", "texts"): 46_767,
    },
}  # fmt: skip
NOT_JUDGED = {("sysu", "total", what) for what in ("RGB", "IR", "texts")}
COLUMNS = ("ids", "RGB", "IR", "gallery", "RGB texts", "IR texts", "rephrases", "texts")


class Difference(NamedTuple):
    """A count that is not the published one."""

    split: str
    what: str
    found: int
    published: int
    judged: bool


@dataclass
class Report:
    """What the check found.

    Attributes:
        counts: (split, what) -> number found; splits "train", "test", "total".
        differences: counts that are not the published ones.
        missing: paths of files that are named somewhere and not on disk.
        uncaptioned: paths of images without a caption.
        rows: what is wrong with single rows of own data, each with its place.
        problems: everything else that is wrong, one sentence each.
        notes: what is worth knowing and not wrong.
        left_out: (file, why) -> entries of caption files that nothing uses.
        published: (split, what) -> published count; {} = there are none to compare with.
    """

    key: str
    name: str
    published: Mapping[tuple[str, str], int] = field(default_factory=dict)
    dataset_dir: str = ""
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    uncaptioned: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        """Whether the data set is complete and as published."""
        wrong = self.missing or self.uncaptioned or self.broken or self.rows or self.problems
        return not wrong and not any(difference.judged for difference in self.differences)

    def compare(self) -> None:
        """Note which counts are not the published ones."""
        for (split, what), number in self.published.items():
            if (found := self.counts.get((split, what), 0)) != number:
                judged = (self.key, split, what) not in NOT_JUDGED
                self.differences.append(Difference(split, what, found, number, judged))

    def decode(self, paths: Iterable[str], window: Window | None = None, deep: list[str] | None = None) -> None:
        """Open every image that is there; those that cannot be decoded are named with the reason.

        Args:
            window: what of more than 8 bits becomes grey.
            deep: gets the paths of those that have more than 8 bits, and no window.
        """
        gone = set(self.missing)
        for path in (path for path in paths if path not in gone):
            try:
                open_picture(path, window)
            except OSError as error:
                if isinstance(error, DepthError) and deep is not None:
                    deep.append(path)
                why = error.reason if isinstance(error, PictureError) else error
                self.broken.append(f"{path} ({str(why).rstrip('.')})")

    def to_text(self, limit: int | None = None) -> str:
        """The report as text; of each list of files at most `limit` are named."""
        lines = [f"{self.name} in {self.dataset_dir}"]
        if self.counts:
            rows = []
            for split in dict.fromkeys(split for split, _ in self.counts):
                rows.append([split, *(self.counts.get((split, what), "") for what in COLUMNS)])
                if self.published:
                    rows.append(["published", *(self.published.get((split, what), "") for what in COLUMNS)])
            lines += [tabulate(rows, headers=["split", *COLUMNS], tablefmt="simple", numalign="right")]
        if self.left_out:
            skipped = [[count, why, file] for (file, why), count in sorted(self.left_out.items())]
            lines += ["", tabulate(skipped, headers=["left out", "why", "file"], tablefmt="simple"), ""]
        for d in self.differences:
            verdict = "DIFFERS" if d.judged else "differs, not judged (the published total counts persons of no split)"
            lines.append(f"{verdict}: {d.split} {d.what}: {d.found}, published {d.published}")
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        lines += [f"note: {note}" for note in self.notes]
        for title, paths in (
            ("missing files", self.missing),
            ("images without a caption", self.uncaptioned),
            ("images that cannot be read", self.broken),
            ("problems in rows", self.rows),
        ):
            if paths:
                shown = paths if limit is None else paths[:limit]
                lines += [f"{len(paths)} {title}:", *(f"  {path}" for path in shown)]
                if len(shown) < len(paths):
                    lines.append(f"  ... and {len(paths) - len(shown)} more")
        lines.append("OK: complete" if self.ok else "NOT OK")
        return "\n".join(lines)


def check_dataset(
    key: str, root: str, folder: str = "", trial: int = 1, published: bool = True, text: bool = True, decode: bool = False
) -> Report:
    """Count a data set's images and captions, and name what is missing.

    Args:
        key: "sysu", "regdb" or "llcm".
        folder: the data set's folder below `root`; "" as the data set itself looks for it.
        published: whether counts must be the published ones (not so for a synthetic or partial set).
    """
    if key not in DATASETS:
        raise ValueError(f"Unknown data set {key!r}; choices are {', '.join(DATASETS)}.")
    kind = DATASETS[key]
    expected = {count: n for count, n in PUBLISHED[key].items() if text or count[1] != "texts"} if published else {}
    report = Report(key, kind.name, expected)
    try:
        report.dataset_dir = kind.find_folder(root, folder)
        splits = {name: kind.read_split(report.dataset_dir, name, trial) for name in ("train", "test")}
    except (FileNotFoundError, ValueError) as error:
        report.dataset_dir = report.dataset_dir or os.path.abspath(root)
        report.problems.append(str(error))
        return report
    banks = _read_banks(kind, report, splits["train"]) if text else {}
    _count(kind, report, splits, banks)
    _find_missing(kind, report, splits, banks)
    report.compare()
    _find_one_sided(report, splits, published)
    if report.ok:
        _load(kind, report, root, folder, trial, text)
    elif twice := repeated(_paths(splits)):
        report.notes.append(f"{len(twice)} images are listed more than once ({examples(twice, 2)}); each line counts.")
    if decode:
        report.decode(_paths(splits))
    return report


def _load(kind: type[TriDataset], report: Report, root: str, folder: str, trial: int, text: bool) -> None:
    """Make the data set as a training does, which knows best what it needs; what it warns of is worth knowing."""
    try:
        report.notes += kind(root=root, folder=folder, trial=trial, text=text, verbose=False).warnings
    except (ValueError, LookupError, OSError) as error:
        report.problems.append(f"Training could not start: {error.args[0] if isinstance(error, KeyError) else error}")


def _paths(splits: dict[str, Split]) -> list[str]:
    return [item.path for split in splits.values() for items in (split.rgb, split.ir) for item in items]


def _read_banks(kind: type[TriDataset], report: Report, train: Split) -> dict[Modality, CaptionBank]:
    banks = {}
    for modality in (Modality.RGB, Modality.IR):
        try:
            bank = kind.read_bank(report.dataset_dir, modality, train)
        except ValueError as error:
            report.problems.append(str(error))
            continue
        if bank is None:
            report.problems.append(f"No {modality.value} caption files below {Path(report.dataset_dir, 'Text')}.")
        else:
            banks[modality] = bank
            report.left_out += bank.left_out
    return banks


def _count(kind: type[TriDataset], report: Report, splits: dict[str, Split], banks: dict[Modality, CaptionBank]) -> None:
    counts = report.counts
    for name, split in splits.items():
        counts[name, "ids"] = len({person_of(item.path) for item in [*split.rgb, *split.ir]})
        counts[name, "texts"] = counts[name, "rephrases"] = 0
        for modality in (Modality.RGB, Modality.IR):
            items, what = split.of(modality), modality.value.upper()
            found = [item for item in items if modality in banks and kind.relative(item.path) in banks[modality]]
            counts[name, what], counts[name, f"{what} texts"] = len(items), len(found)
            counts[name, "texts"] += len(found)
            counts[name, "rephrases"] += sum(bool(banks[modality][kind.relative(i.path)].rephrase) for i in found)
            # Without any caption file the one problem above says it all.
            if modality in banks:
                with_text = {item.path for item in found}
                report.uncaptioned += [item.path for item in items if item.path not in with_text]
    test = splits["test"]
    # The galleries of SYSU-MM01's "all" and of LLCM leave no visible camera out.
    counts["test", "gallery"] = len(test.rgb) if kind is TriRegDB else len(gallery_groups(test.rgb, range(10)))
    persons = {name: {person_of(item.path) for item in [*s.rgb, *s.ir]} for name, s in splits.items()}
    counts["total", "ids"] = len(persons["train"] | persons["test"])
    for what in ("RGB", "IR", "RGB texts", "IR texts", "rephrases", "texts"):
        counts["total", what] = counts["train", what] + counts["test", what]


def _find_missing(kind: type[TriDataset], report: Report, splits: dict[str, Split], banks: dict[Modality, CaptionBank]) -> None:
    report.missing = missing_files(_paths(splits))
    both = set(splits["train"].ids) & set(splits["test"].ids)
    if both:
        report.problems.append(f"{len(both)} persons are in training and test: {_names(both)}.")
    on_disk: dict[Modality, set[str]] = {
        modality: {kind.relative(item.path) for split in splits.values() for item in split.of(modality)} for modality in banks
    }
    listed = {pid for split in splits.values() for pid in split.ids}
    for modality, bank in banks.items():
        # A caption without its image tells of a file that a scan of the folders alone cannot miss.
        strays = sorted(key for key in bank if person_of(key) in listed and key not in on_disk[modality])
        gone = missing_files(os.path.join(report.dataset_dir, key) for key in strays)
        report.missing += gone
        if others := len(strays) - len(gone):
            report.notes.append(
                f"{others} captions of {bank.source} are of images that are not {modality.value}; is it the other kind's file?"
            )
    if Modality.RGB in banks:
        _check_persons(report, banks[Modality.RGB], {item.pid for item in splits["test"].ir}, listed)


def _check_persons(report: Report, visible: CaptionBank, queried: set[int], listed: set[int]) -> None:
    """Who has no text that a query could be, and whose texts are not those of the images."""
    where = visible.persons_source
    persons = {pid: texts for pid, texts in (visible.persons or {}).items() if not all(is_blank(one.text) for one in texts)}
    if without := queried - set(persons):
        report.problems.append(f"{len(without)} test identities have no captions in {where}: {_names(without)}.")
    said: dict[int, set[str]] = {}
    for key in visible:
        said.setdefault(person_of(key), set()).add(visible[key].text)
    known = listed & persons.keys() & said.keys()
    if strange := [pid for pid in known if said[pid].isdisjoint(one.text.strip() for one in persons[pid])]:
        report.notes.append(
            f"the texts of {len(strange)} identities in {where} are captions of none of their visible images: "
            f"{examples(sorted(strange))}; is it the other kind's file, or numbered otherwise?"
        )


def _find_one_sided(report: Report, splits: dict[str, Split], published: bool) -> None:
    """Listed identities without images of one kind; where all counts are the published ones, that is how the set is."""
    for name, split in splits.items():
        as_published = published and not any(d.split == name and d.judged for d in report.differences)
        for what, items in (("visible", split.rgb), ("infrared", split.ir)):
            without = set(split.ids) - {person_of(item.path) for item in items}
            if without:
                sentence = f"{len(without)} {name} identities have no {what} image: {_names(without)}."
                (report.notes if as_published else report.problems).append(sentence)


def _names(pids: Iterable[int]) -> str:
    return ", ".join(str(pid) for pid in sorted(pids))
