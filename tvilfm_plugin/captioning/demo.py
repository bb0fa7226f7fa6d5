"""The whole chain on the synthetic benchmark, with a small BLIP: fine-tune, caption, filter, compare with the truth."""

import json
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvilfm_plugin.captioning.captioner import Captioner, load_captioner
from tvilfm_plugin.captioning.colour_filter import has_colour
from tvilfm_plugin.captioning.engine import describe_images
from tvilfm_plugin.captioning.finetune import SMALL, TrainingOptions, build_captioner, finetune
from tvilfm_plugin.captioning.pairs import TextPair, make_ir_pairs
from tvilfm_plugin.captioning.rows import read_descriptions, write_json, write_text
from tvilfm_plugin.captioning.sources import SourceSet, find_sources
from tvilfm_plugin.captioning.truth_audit import FACTS, Truth, read_truth, truth_findings
from tvilfm_plugin.description.lexicon import garment_colours
from tvilfm_plugin.files.writing import make_folder
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.synthetic import Spec, make_synthetic
from tvilfm_plugin.synthetic.writer import looks_in

logger = logging.getLogger(__name__)

_GARMENTS = {"upper": ("top", "sweater", "jacket"), "lower": ("trousers", "shorts", "skirt")}
# 8 x 8 patches of 12 pixels cost as much as 8 x 8 of 8 pixels, and thin stripes and tartans survive the resizing.
_SMALL_BLIP = {"image_size": 96, "patch_size": 12, "width": 96, "vision_layers": 2, "text_layers": 2}
_RATE = 1.5e-3
# Visible: what pre-training knows about colours is to be kept, and a higher rate learns the few training people by heart.
# Infrared: images unlike those of pre-training.
_VISIBLE_RATE, _INFRARED_RATE = 2e-4, 5e-4
_VISIBLE_STEPS = {True: 400, False: 4000}  # pre-trained or not


@dataclass(frozen=True)
class DemoOptions:
    """How long and on what to train.

    Attributes:
        others: people drawn for pre-training only, none of them in the benchmark: the stand-in for BLIP's own weights, which a
            machine without a network does not have. 0 = start from an untrained BLIP.
        pretraining_steps: on the captions of the others.
        rgb_steps, ir_steps: of the two fine-tunings on the benchmark's training people; rgb_steps 0 = 400, or 4000 of an
            untrained BLIP.
        control: train the infrared captioner once more, without its colour filter.
    """

    others: int = 3000
    pretraining_steps: int = 12000
    rgb_steps: int = 0
    ir_steps: int = 1000
    control: bool = False
    seed: int = 0


@dataclass
class ColourScore:
    """Garment colours that captions got right.

    Attributes:
        right: garments whose named colours are all colours that the garment was drawn in.
        main: garments of which exactly the main colour is named (that of a chequered shirt is one of two, half and half).
        named, drawn: garments whose colour is named at all, and that were drawn.
        people: with at least one image.
    """

    right: int = 0
    main: int = 0
    named: int = 0
    drawn: int = 0
    people: int = 0

    @property
    def accuracy(self) -> float:
        """Share of the drawn garments whose colour the captions name rightly; a colour left out counts as wrong."""
        return self.right / self.drawn if self.drawn else 0.0

    @property
    def main_accuracy(self) -> float:
        """The same for the main colour alone."""
        return self.main / self.drawn if self.drawn else 0.0


def run_demo(dataset: Path, out: Path, options: DemoOptions) -> dict[str, Any]:
    """Make a data set with generated captions out of a synthetic one, and measure the captions.

    Args:
        out: folder of the new data set: the same images (links), new captions; captioners and report in `out/captioners`.

    Returns:
        the report, which also lies in `out/captioners/report.json` and `report.md`.
    """
    facts = json.loads((dataset / "attributes.json").read_text(encoding="utf-8"))
    link_images(dataset, out)
    work = out / "captioners"
    root, folder = str(out.parent), out.name
    rgb, ir = (find_sources("sysu", root, modality, folder=folder) for modality in (Modality.RGB, Modality.IR))
    clock = _Clock()

    withheld = withheld_people(facts)
    if options.others:
        pretrain(dataset, facts, withheld, work, options)
        clock.stop("pre-train on other people")
    visible = _train_visible(dataset, rgb, withheld, work, options)
    clock.stop("fine-tune visible captioner")
    describe_images(visible, rgb, rgb.text_folder, batch_size=128, workers=2)
    clock.stop("caption visible images")

    said = read_descriptions(rgb.text_folder / f"caption_dict_{rgb.text_name}.json")
    infrared = _train_infrared(rgb, ir, said, "strict", work, options)
    clock.stop("fine-tune infrared captioner")
    describe_images(infrared, ir, ir.text_folder, batch_size=128, workers=2)
    clock.stop("caption infrared images")
    heard = read_descriptions(ir.text_folder / f"caption_dict_{ir.text_name}.json")

    given = _given_captions(dataset, rgb)
    scores, truth = score_colours(facts, rgb, said, withheld), read_truth(dataset / FACTS)
    scores |= {f"{name}, given": score_colours(facts, rgb, given, withheld)[name] for name in ("all", "person")}
    report: dict[str, Any] = {
        "dataset": facts["spec"],
        "options": asdict(options),
        "withheld_training_people": len(withheld),
        "seconds": clock.parts,
        "colours": {name: asdict(s) | {"accuracy": s.accuracy, "main": s.main_accuracy} for name, s in scores.items()},
        "attributes": {
            "visible": _score_attributes(truth, rgb, said),
            "visible, given": _score_attributes(truth, rgb, given),
            "infrared": _score_attributes(truth, ir, heard),
        },
        "infrared": _count_colours(ir, heard),
    }
    if options.control:
        unfiltered = _train_infrared(rgb, ir, said, "none", work, options)
        spoken = describe_images(unfiltered, ir, work / "unfiltered_text", batch_size=128, workers=2)
        texts = read_descriptions(spoken.files[0])
        report["infrared_without_filter"] = _count_colours(ir, texts)
        clock.stop("control without colour filter")
    write_json(work / "report.json", report)
    write_text(work / "report.md", _markdown(report))
    return report


def pretrain(dataset: Path, facts: Mapping[str, Any], withheld: Collection[int], work: Path, options: DemoOptions) -> None:
    """Train a BLIP on people who are in neither split, and not in the colours that are kept from it."""
    spec = Spec(
        "sysu", ids=options.others, test_ids=4, seed=facts["spec"]["seed"] + 7, images_rgb=4, images_ir=1, test_images_rgb=4,
        test_images_ir=1, height=facts["spec"]["height"],
    )  # fmt: skip
    folder = make_synthetic(spec, work / "others", workers=os.cpu_count() or 1, progress=False)
    others = json.loads((folder / "attributes.json").read_text(encoding="utf-8"))["people"]
    known = looks_in(dataset)
    kept_out = {_colour_pair(facts["people"][str(pid)]) for pid in withheld} | new_pairs(facts, withheld)
    refused = {
        int(number)
        for number, person in others.items()
        if _colour_pair(person) in kept_out or (*person["shape"].values(), *person["palette"].values()) in known
    }
    images = find_sources("sysu", str(work), Modality.RGB, folder=folder.name)
    captions = _given_captions(folder, images)
    pairs = [TextPair(source.path, (captions[source.key],)) for source in images.sources if source.pid not in refused]
    _train("pretrained", SMALL, pairs, work, options.pretraining_steps, _RATE, options.seed)


def _given_captions(dataset: Path, images: SourceSet) -> dict[str, str]:
    """The captions that a synthetic benchmark was made with, by the keys of the images."""
    given = read_descriptions(dataset / "Text" / "Blip_RGB" / "caption_dict_Blip_RGB.json")
    return {images.relative(path): text for path, text in given.items()}


def _colour_pair(person: Mapping[str, Any]) -> tuple[str, str]:
    return person["palette"]["upper"], person["palette"]["lower"]


def new_pairs(facts: Mapping[str, Any], withheld: Collection[int]) -> set[tuple[str, str]]:
    """Colour pairs that test people wear and no training person but the withheld ones."""
    met = {
        _colour_pair(person)
        for number, person in facts["people"].items()
        if person["split"] == "train" and int(number) not in withheld
    }
    return {_colour_pair(person) for person in facts["people"].values() if person["split"] == "test"} - met


def link_images(dataset: Path, out: Path) -> None:
    """The same data set without its captions: links to everything else."""
    make_folder(out)
    for entry in sorted(dataset.iterdir()):
        link = out / entry.name
        if entry.name in ("Text", ".cache", "text_tower.pt", "text_tower.json") or link.is_symlink():
            continue
        link.symlink_to(os.path.relpath(entry, out), target_is_directory=entry.is_dir())


def withheld_people(facts: Mapping[str, Any], share: float = 1 / 3) -> set[int]:
    """Training people whom the captioner must not see, so that a share of the test people wear colours that it never saw.

    What counts is the pair (upper colour, lower colour). Pairs are withheld that cost the fewest training people.
    """
    pairs: dict[tuple[str, str], dict[str, list[int]]] = {}
    for number, person in facts["people"].items():
        pairs.setdefault(_colour_pair(person), {"train": [], "test": []})[person["split"]].append(int(number))
    wanted = share * sum(person["split"] == "test" for person in facts["people"].values())
    withheld: set[int] = set()
    new = 0
    for found in sorted(pairs.values(), key=lambda found: (len(found["train"]) / max(1, len(found["test"])), found["test"])):
        if new >= wanted:
            break
        if found["test"]:
            new += len(found["test"])
            withheld |= set(found["train"])
    return withheld


def training_pairs(rgb: SourceSet, captions: Mapping[str, str], withheld: Collection[int]) -> list[TextPair]:
    """Visible training images with their given captions, without some people."""
    return [
        TextPair(source.path, (captions[source.key],))
        for source in rgb.sources
        if source.split == "train" and source.pid not in withheld and source.key in captions
    ]


def _train(name: str, init: str, pairs: Sequence[TextPair], work: Path, steps: int, rate: float, seed: int) -> Captioner:
    folder = work / name
    if not (folder / "training.json").is_file():
        captioner = build_captioner("blip", init, pairs, **(_SMALL_BLIP | {"seed": seed}))
        options = TrainingOptions(
            steps=steps, batch_size=32, learning_rate=rate, augment=True, amp="bf16", seed=seed, device="cpu",
            save_every=max(1, steps // 4),
        )  # fmt: skip
        finetune(captioner, pairs, [], folder, options)
    modality = Modality.IR if name.startswith("ir") else Modality.RGB
    return load_captioner("blip", str(folder), modality=modality)


def _train_visible(dataset: Path, rgb: SourceSet, withheld: Collection[int], work: Path, options: DemoOptions) -> Captioner:
    pairs = training_pairs(rgb, _given_captions(dataset, rgb), withheld)
    steps = options.rgb_steps or _VISIBLE_STEPS[bool(options.others)]
    if options.others:
        return _train("rgb", str(work / "pretrained"), pairs, work, steps, _VISIBLE_RATE, options.seed)
    return _train("rgb", SMALL, pairs, work, steps, _RATE, options.seed)


def _train_infrared(
    rgb: SourceSet, ir: SourceSet, captions: Mapping[str, str], colour_filter: str, work: Path, options: DemoOptions
) -> Captioner:
    made = make_ir_pairs(rgb, ir, captions, colour_filter=colour_filter, per_image=4, seed=options.seed)
    pairs = [TextPair(str(ir.folder / entry["image"]), tuple(entry["caption"])) for entry in made]
    name = "ir" if colour_filter == "strict" else "ir_unfiltered"
    return _train(name, str(work / "rgb"), pairs, work, options.ir_steps, _INFRARED_RATE, options.seed)


class _Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part], self._last = round(now - self._last, 1), now
        logger.info(f"{part}: {self.parts[part]} s")


def score_colours(
    facts: Mapping[str, Any], rgb: SourceSet, captions: Mapping[str, str], withheld: Collection[int]
) -> dict[str, ColourScore]:
    """Compare the captions of the test people's visible images with what was drawn.

    Args:
        withheld: training people whom the captioner never saw; they decide which colours of test people are new.

    Returns:
        scores "all", "known colours" and "new colours" (people whose pair of colours no training person wears), against
        what was drawn in each image; "person" is against the person's own colours, some of which an image's light
        falsifies.
    """
    people = {int(number): person for number, person in facts["people"].items()}
    unseen = new_pairs(facts, withheld)
    scores = {name: ColourScore() for name in ("all", "known colours", "new colours", "person")}
    seen: dict[str, set[int]] = {name: set() for name in scores}
    for source in rgb.sources:
        person = people[source.pid]
        if person["split"] != "test":
            continue
        palette, falsified = person["palette"], facts["images"][source.key]["seen"]
        new = _colour_pair(person) in unseen
        said = garment_colours(captions.get(source.key, ""))
        for slot, names in _GARMENTS.items():
            colours = set().union(*(said.get(name, set()) for name in names))
            own = [palette[name] for name in _slots(slot, person["shape"])]
            shown = [falsified.get(name, palette[name]) for name in _slots(slot, person["shape"])]
            for group, truth in (("all", shown), ("new colours" if new else "known colours", shown), ("person", own)):
                score = scores[group]
                score.drawn += 1
                score.named += bool(colours)
                score.main += colours == {truth[0]}
                score.right += bool(colours) and colours <= set(truth)
                seen[group].add(source.pid)
    for group, score in scores.items():
        score.people = len(seen[group])
    return scores


def _slots(garment: str, shape: Mapping[str, str]) -> tuple[str, ...]:
    """Slots of the palette that a garment shows, the main one first."""
    pattern, second = {"upper": ("pattern", "second"), "lower": ("lower_pattern", "trim")}[garment]
    return (garment,) if shape[pattern] == "plain" else (garment, second)


def _score_attributes(truth: Truth, images: SourceSet, captions: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Attribute -> the share of the test people's captions that name it, and of those the share that name a true value."""
    texts = {s.key: captions[s.key] for s in images.sources if s.split != "train" and s.key in captions}
    found = truth_findings(truth, texts, images.modality)
    return {one.key.removeprefix("untrue_"): (one.of / len(texts), 1 - one.share) for one in found}


def _count_colours(images: SourceSet, captions: Mapping[str, str]) -> dict[str, int]:
    texts = [captions[source.key] for source in images.sources if source.key in captions]
    return {"captions": len(texts), "with_colour": sum(map(has_colour, texts)), "distinct": len(set(texts))}


def _markdown(report: Mapping[str, Any]) -> str:
    lines = [
        "# Captions generated on the synthetic benchmark",
        "",
        "Nobody in these images exists. Garment colours (upper and lower) in captions of test people, whom the captioner",
        "never saw:",
        "",
        "| test people | people | garments in the right colour | in the main colour | colour named at all |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, score in report["colours"].items():
        label = name.replace("person", "all, against the person's own colours (light falsifies some)")
        named = score["named"] / max(1, score["drawn"])
        lines.append(f"| {label} | {score['people']} | {score['accuracy']:.1%} | {score['main']:.1%} | {named:.1%} |")
    lines += [
        "",
        "Right: what the caption names is a colour that the garment was drawn in; of a patterned one there are two, and in",
        "some patterns neither covers more than the other. A garment without a named colour counts as wrong everywhere.",
    ]
    if report["options"]["others"]:
        lines += [
            "",
            f"The captioner was pre-trained on {report['options']['others']} other synthetic people (in neither split, in none",
            "of the new colours), the stand-in for BLIP's own weights, and fine-tuned on the training people.",
        ]
    kinds = report["attributes"]
    lines += [
        "",
        "What the captions of the test people say of the person: named in, and of those true.",
        "",
        f"| attribute | {' | '.join(kinds)} |",
        "|---|" + "---:|" * len(kinds),
    ]
    for slot in kinds["visible, given"]:
        cells = [f"{kinds[kind][slot][0]:.1%}, {kinds[kind][slot][1]:.1%}" if slot in kinds[kind] else "" for kind in kinds]
        lines.append(f"| {slot.replace('_', ' ')} | {' | '.join(cells)} |")
    infrared = report["infrared"]
    lines += ["", f"Infrared captions: {infrared['captions']}, {infrared['with_colour']} of them name a colour."]
    if "infrared_without_filter" in report:
        control = report["infrared_without_filter"]
        lines.append(f"Without the colour filter in training: {control['with_colour']} of {control['captions']} name one.")
    total = sum(report["seconds"].values())
    lines += ["", f"Time: {total:.0f} s (" + ", ".join(f"{part} {s:.0f} s" for part, s in report["seconds"].items()) + ")."]
    return "\n".join(lines) + "\n"
