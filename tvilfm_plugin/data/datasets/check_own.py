"""Self-check of own data: every problem by row, before hours are spent on training."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from yacs.config import CfgNode

from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.datasets.check import Report
from tvilfm_plugin.data.datasets.listing import examples, missing_files
from tvilfm_plugin.data.datasets.own import OWN, TriTable, relative_to
from tvilfm_plugin.data.image_table import ImageTable, Row, camera_numbers, identity_number, is_distractor
from tvilfm_plugin.data.items import Item, gallery_groups
from tvilfm_plugin.data.loaders import sampler_of
from tvilfm_plugin.data.tokenizer import CONTEXT_LENGTH, end_of_text, tokenize
from tvilfm_plugin.evaluation.protocols import LLCM, Labels, Protocol
from tvilfm_plugin.files.pictures import SUFFIXES, Window, counts_of, is_picture
from tvilfm_plugin.modality import Modality

KINDS = {Modality.RGB: "visible", Modality.IR: "infrared"}


def check_own(
    key: str,
    root: str,
    folder: str = "",
    rules: Protocol = LLCM,
    text: bool = True,
    decode: bool = False,
    cfg: CfgNode | None = None,
) -> Report:
    """Read own data as training would, and say of every row what is wrong with it.

    Args:
        key: "table" or "folder".
        folder: the data set's folder below `root`; "" = "own".
        rules: by which it will be ranked (DATASETS.RULES).
        cfg: of a training: whether its data set and its sampler take the data is a part of the check.
    """
    kind = OWN[key]
    report = Report(key, kind.name, dataset_dir=os.path.abspath(root))
    try:
        report.dataset_dir = kind.find_folder(root, folder)
        with kind.read_once(report.dataset_dir) as table:
            _look_at(report, kind, table, rules, text)
    except (FileNotFoundError, ValueError, ModuleNotFoundError) as error:
        report.problems.append(str(error))
        return report
    if decode:
        _decode(report, table, cfg)
    if cfg is not None and report.ok:
        _check_training(report, kind, root, folder, text, cfg)
    return report


def _look_at(report: Report, kind: type[TriTable], table: ImageTable, rules: Protocol, text: bool) -> None:
    """Everything that can be said without opening a picture."""
    report.rows += table.problems
    report.notes += table.notes
    report.missing = missing_files(os.path.join(report.dataset_dir, row.path) for row in table.rows)
    _note_kinds(report, table.rows)
    _check_paths(report, table.rows)
    _check_people(report, table.rows)
    _check_queries(report, table.rows, rules)
    captions = _captions(report, kind, table) if text else {}
    _count(report, table.rows, captions)


def _decode(report: Report, table: ImageTable, cfg: CfgNode | None) -> None:
    """Open every picture that is there."""
    window = Window.of(cfg.INPUT.IR_SCALING) if cfg is not None else None
    for modality in KINDS:
        files = [os.path.join(report.dataset_dir, row.path) for row in table.rows if row.modality is modality]
        deep: list[str] = []
        report.decode(files, window if modality is Modality.IR else None, deep)
        if deep and modality is Modality.IR:
            report.notes.append(suggest_window(deep))


def _check_training(report: Report, kind: type[TriTable], root: str, folder: str, text: bool, cfg: CfgNode) -> None:
    """Make the data set and the sampler of a training, which know best what they need."""
    try:
        data = kind(
            root=root,
            folder=folder,
            shots=tuple(cfg.DATASETS.SHOTS),
            draws=cfg.TEST.DRAWS,
            text=text,
            held_out=cfg.TEST.HELD_OUT,
            validation=cfg.SOLVER.EPOCH_RULE == "validation",
            rules=cfg.DATASETS.RULES,
            verbose=False,
        )
        sampler_of(cfg, data, seed=0)
    except (ValueError, LookupError, OSError) as error:
        report.problems.append(f"Training could not start: {error.args[0] if isinstance(error, KeyError) else error}")


def _note_kinds(report: Report, rows: Sequence[Row]) -> None:
    kinds = Counter(os.path.splitext(row.path)[1].lower() for row in rows if is_picture(row.path))
    if len(kinds) > 1:
        report.notes.append(f"images are of several kinds: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}.")


def suggest_window(files: Sequence[str]) -> str:
    """What INPUT.IR_SCALING may be for infrared images of more than 8 bits: percentiles of some, evenly chosen."""
    some = (counts_of(file) for file in files[:: max(1, len(files) // 200)])
    counts = [found.ravel() for found in some if found is not None and np.isfinite(found).all()]
    if not counts:
        return f"{len(files)} infrared images have more than 8 bits in several channels, or no numbers; save them with 8 bits."
    low, high = np.percentile(np.concatenate(counts).astype(np.float64), (1, 99))
    return (
        f"{len(files)} infrared images have more than 8 bits; the 1st and 99th percentile of their counts are {low:g} and "
        f'{high:g}. INPUT.IR_SCALING "({low:g}, {high:g})" in training, evaluation and search makes them black and white.'
    )


def _check_paths(report: Report, rows: Sequence[Row]) -> None:
    first: dict[str, Row] = {}
    for row in rows:
        if not is_picture(row.path):
            report.rows.append(f"{row.where}: {row.path} is no image; names end in {', '.join(SUFFIXES)}.")
        known = first.setdefault(row.path, row)
        if known is not row:
            differing = [name for name in ("identity", "modality", "split") if getattr(known, name) != getattr(row, name)]
            but = f", there with another {' and '.join(differing)}" if differing else ""
            report.rows.append(f"{row.where}: {row.path} stands in {known.where} already{but}.")


def _check_people(report: Report, rows: Sequence[Row]) -> None:
    """Who is where: nobody in training and test, everybody in training by day and by night."""
    seen: dict[str, dict[str, Row]] = defaultdict(dict)
    kinds: dict[tuple[str, str], set[Modality]] = defaultdict(set)
    numbers: dict[int, Row] = {}
    for row in rows:
        seen[row.identity].setdefault(row.split, row)
        kinds[row.split, row.identity].add(row.modality)
        known = numbers.setdefault(identity_number(row.identity), row)
        if known.identity != row.identity and seen[row.identity][row.split] is row:
            report.rows.append(
                f"{row.where}: identity {row.identity!r} counts as {known.identity!r} of {known.where}; if they are "
                "two people, rename one."
            )
    for identity, places in seen.items():
        if len(places) > 1:
            where = ", ".join(f"{split} ({row.where})" for split, row in places.items())
            report.rows.append(f"identity {identity!r} is in {where}: nobody may be in two splits.")
    for split in ("train", "val", "test"):
        people = sorted(identity for one, identity in kinds if one == split)
        for modality, name in KINDS.items():
            without = [one for one in people if modality not in kinds[split, one] and not is_distractor(one)]
            if without and split != "test":
                report.notes.append(
                    f"{len(without)} {split} identities have no {name} image ({examples(without)}): they form no pair and are "
                    "left out of training."
                )
            elif without:
                role = "a gallery image of theirs: their queries count in nothing" if modality is Modality.RGB else "a query"
                who = f"{len(without)} test identities have no {name} image ({examples(without)})"
                report.notes.append(f"{who}, so not {role}.")
        # Training takes those of val, too.
        pairs = [i for (one, i), found in kinds.items() if len(found) == 2 and split in (one, one.replace("val", "train"))]
        if split != "val" and len(pairs) < 2:
            report.problems.append(
                f"Split {split} has fewer than two identities with visible and infrared images ({len(people)} identities in "
                "all): there is nothing to tell apart."
            )


def _check_queries(report: Report, rows: Sequence[Row], rules: Protocol) -> None:
    """A query whose every right answer the rules ignore counts in nothing."""
    cameras = camera_numbers([row.camera for row in rows])
    test = {m: [row for row in rows if row.split == "test" and row.modality is m] for m in KINDS}
    gallery = _labels(test[Modality.RGB], cameras)
    for row in test[Modality.IR]:
        query = _labels([row], cameras)
        right = gallery.pids == query.pids[0]
        junk = np.broadcast_to(rules.is_junk(query.pids[:, None], query.camids[:, None], gallery), (1, len(right)))[0]
        if right.any() and not (right & ~junk).any():
            report.rows.append(
                f"{row.where}: by the rules {rules.name} this query ignores every image of {row.identity!r} (camera "
                f"{row.camera}). Give infrared and visible cameras different names, or choose other rules (DATASETS.RULES)."
            )


def _labels(rows: Sequence[Row], cameras: dict[str, int]) -> Labels:
    return Labels(
        np.array([identity_number(row.identity) for row in rows], np.int64),
        np.array([cameras[row.camera] for row in rows], np.int64),
    )


def _captions(report: Report, kind: type, table: ImageTable) -> dict[Modality, CaptionBank]:
    """The captions that training would use; rows without one are named."""
    banks: dict[Modality, CaptionBank] = {}
    if table.problems:
        report.notes.append("captions are looked at when every row can be understood.")
        return banks
    for modality, name in KINDS.items():
        rows = [row for row in table.rows if row.modality is modality]
        try:
            bank = kind.read_bank(report.dataset_dir, modality, kind.read_split(report.dataset_dir, "train"))  # type: ignore[attr-defined]
        except ValueError as error:
            report.problems.append(str(error))
            continue
        if bank is None:
            report.problems.append(
                f"No {name} image has a caption. Fill the column 'caption', generate captions (`tvilfm captions generate "
                f"--dataset {report.key}`), or train without text: --no-text here, the stage-1 config for training."
            )
            continue
        banks[modality] = bank
        report.left_out += bank.left_out
        keys = [relative_to(report.dataset_dir, row.path) for row in rows]
        named = list(zip(rows, keys, strict=True))
        report.rows += [f"{row.where}: {row.path} has no caption." for row, key in named if key not in bank]
        captioned = {key: row.where for row, key in named if key in bank}
        texts = {key: bank[key].text for key in captioned}
        foreign = [captioned[key] for key, text in texts.items() if _is_foreign(text)]
        if foreign:
            report.notes.append(
                f"{len(foreign)} {name} captions are in another script ({examples(foreign)}); CLIP's vocabulary is English."
            )
        if captioned:
            tokens = tokenize([bank[key].text for key in captioned])
            # A text that was cut fills its row to the end.
            ends = end_of_text(tokens).tolist()
            cut = [where for where, end in zip(captioned.values(), ends, strict=True) if end == CONTEXT_LENGTH - 1]
            if cut:
                report.notes.append(
                    f"{len(cut)} {name} captions fill or exceed {CONTEXT_LENGTH} tokens and are cut there ({examples(cut)})."
                )
        without = sum(not bank[key].rephrase for key in captioned)
        if without:
            report.notes.append(f"{without} of {len(captioned)} {name} captions have no rephrase: they are used as they are.")
    return banks


def _is_foreign(text: str) -> bool:
    """Whether most letters are none of the Latin script."""
    letters = [char for char in text if char.isalpha()]
    return sum(ord(char) > 0x24F for char in letters) * 2 > len(letters)


def _count(report: Report, rows: Sequence[Row], banks: dict[Modality, CaptionBank]) -> None:
    counts = report.counts
    for name, splits in (("train", ("train", "val")), ("test", ("test",)), ("total", ("train", "val", "test"))):
        chosen = [row for row in rows if row.split in splits]
        counts[name, "ids"] = len({row.identity for row in chosen})
        counts[name, "texts"] = counts[name, "rephrases"] = 0
        for modality in KINDS:
            of_kind = [row for row in chosen if row.modality is modality]
            keys = [relative_to(report.dataset_dir, row.path) for row in of_kind]
            said = [banks[modality][key] for key in keys if modality in banks and key in banks[modality]]
            what = modality.value.upper()
            counts[name, what], counts[name, f"{what} texts"] = len(of_kind), len(said)
            counts[name, "texts"] += len(said)
            counts[name, "rephrases"] += sum(bool(caption.rephrase) for caption in said)
    cameras = camera_numbers([row.camera for row in rows])
    visible = [
        Item(row.path, identity_number(row.identity), cameras[row.camera])
        for row in rows
        if row.split == "test" and row.modality is Modality.RGB
    ]
    counts["test", "gallery"] = len(gallery_groups(visible, set(cameras.values())))
