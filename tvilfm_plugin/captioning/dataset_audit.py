"""Audit the text of a data set on disk: which images there are, who is for training, what the gallery shows."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tvilfm_plugin.captioning.audit import Audit, audit_text
from tvilfm_plugin.captioning.findings import Subject
from tvilfm_plugin.captioning.truth_audit import FACTS, read_truth, truth_findings
from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.items import Item
from tvilfm_plugin.modality import Modality


def audit_dataset(dataset: str, root: str, folder: str = "", trial: int = 1) -> list[Audit]:
    """Audit the captions of "sysu", "regdb" or "llcm" in both modalities; one without captions is left out."""
    from tvilfm_plugin.data.datasets.check import DATASETS

    kind = DATASETS[dataset]
    # Without text, so that missing captions are a finding and no error.
    images = kind(root, folder, trial=trial, text=False, verbose=False)
    train = kind.read_split(images.dataset_dir, "train", trial)
    test = kind.read_split(images.dataset_dir, "test", trial)
    truth = read_truth(facts) if (facts := Path(images.dataset_dir, FACTS)).is_file() else None
    audits = []
    for modality, parts in ((Modality.RGB, (train.rgb, test.rgb)), (Modality.IR, (train.ir, test.ir))):
        bank = kind.read_bank(images.dataset_dir, modality, train)
        if bank is None:
            continue
        subjects = _subjects(kind.relative, *parts, gallery=images.gallery)
        queried = {item.pid for item in images.query}
        drawn = None
        if modality is Modality.RGB and bank.persons is not None:
            drawn = {pid: [c.text for c in said] for pid, said in bank.persons.items() if pid in queried}
        captions = {key: bank[key] for key in bank}
        audit = audit_text(subjects, captions, modality, bank.source, drawn)
        if truth is not None:
            audit.findings += truth_findings(truth, {key: caption.text for key, caption in captions.items()}, modality)
        audits.append(audit)
    return audits


def audit_files(folder: Path, dataset: str, train_ids: str) -> list[Audit]:
    """Audit caption files of "sysu", "regdb" or "llcm" alone, as if all their images existed; `train_ids` "1,2,..."."""
    from tvilfm_plugin.data.datasets.check import DATASETS
    from tvilfm_plugin.data.datasets.listing import find_one

    train = {int(number) for number in train_ids.replace(",", " ").split()}
    audits = []
    for modality, name in ((Modality.RGB, "Blip_RGB"), (Modality.IR, "Blip_IR")):
        texts, rephrases = (find_one(folder / name, start, ".json") for start in ("caption_dict", "caption_llm_dict"))
        if texts or rephrases:
            bank = CaptionBank.from_files(texts, rephrases, None, DATASETS[dataset].relative)
            captions = {key: bank[key] for key in bank}
            audits.append(audit_text(subjects_of_texts(captions, train), captions, modality, bank.source))
    return audits


def exceeded_limits(audits: Sequence[Audit], limits: Mapping[str, float]) -> list[str]:
    """A line for every finding whose share is above its limit."""
    return [
        f"{audit.modality.value}: {found.key} {found.share:.2%} > {limits[found.key]:.2%}"
        for audit in audits
        for found in audit.findings
        if found.key in limits and found.share > limits[found.key]
    ]


def _subjects(
    relative: Callable[[str], str], train: Sequence[Item], test: Sequence[Item], gallery: Iterable[Item]
) -> list[Subject]:
    shown = {item.path for item in gallery}
    found: dict[str, Subject] = {}
    for items, is_train in ((train, True), (test, False)):
        for item in items:
            key = relative(item.path)
            found.setdefault(key, Subject(key, _person(item.path), is_train, item.path in shown, str(item.camid)))
    return list(found.values())


def subjects_of_texts(keys: Iterable[str], train_ids: Collection[int]) -> list[Subject]:
    """The images that caption files name; training images are those of the given identities."""
    return [Subject(key, _person(key), _person(key) in train_ids) for key in keys]


def _person(path: str) -> int:
    from tvilfm_plugin.data.datasets.listing import person_of

    return person_of(path)
