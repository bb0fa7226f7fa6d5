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
from tvilfm_plugin.captioning.lexicon import garment_colours
from tvilfm_plugin.captioning.pairs import TextPair, make_ir_pairs
from tvilfm_plugin.captioning.rows import read_descriptions, write_json, write_text
from tvilfm_plugin.captioning.sources import SourceSet, find_sources
from tvilfm_plugin.modality import Modality

logger = logging.getLogger(__name__)

_GARMENTS = {"upper": ("top", "sweater", "jacket"), "lower": ("trousers", "shorts", "skirt")}
_SMALL_BLIP = {"image_size": 48, "patch_size": 12, "width": 128, "vision_layers": 2, "text_layers": 2}


@dataclass(frozen=True)
class DemoOptions:
    """Lengths of the two trainings, and whether to train the infrared captioner once more without its colour filter."""

    rgb_steps: int = 6000
    ir_steps: int = 1000
    control: bool = False
    seed: int = 0


@dataclass
class ColourScore:
    """Garment colours that captions got right.

    Attributes:
        right, named, drawn: garments whose colour is right, is named at all, and was drawn.
        people: with at least one image.
    """

    right: int = 0
    named: int = 0
    drawn: int = 0
    people: int = 0

    @property
    def accuracy(self) -> float:
        """Share of the drawn garment colours that the captions name rightly; a colour left out counts as wrong."""
        return self.right / self.drawn if self.drawn else 0.0


def run_demo(dataset: Path, out: Path, options: DemoOptions) -> dict[str, Any]:
    """Make a data set with generated captions out of a synthetic one, and measure the captions.

    Args:
        dataset: folder of a synthetic benchmark in SYSU-MM01's layout.
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
    given = read_descriptions(dataset / "Text" / "Blip_RGB" / "caption_dict_Blip_RGB.json")
    pairs = training_pairs(rgb, {rgb.relative(path): text for path, text in given.items()}, withheld)
    visible = _train("rgb", SMALL, pairs, work, options.rgb_steps, 1.5e-3, options.seed)
    clock.stop("fine-tune visible captioner")
    describe_images(visible, rgb, rgb.text_folder, batch_size=128, workers=2)
    clock.stop("caption visible images")

    said = read_descriptions(rgb.text_folder / f"caption_dict_{rgb.text_name}.json")
    infrared = _train_infrared(rgb, ir, said, "strict", work, options)
    clock.stop("fine-tune infrared captioner")
    describe_images(infrared, ir, ir.text_folder, batch_size=128, workers=2)
    clock.stop("caption infrared images")
    heard = read_descriptions(ir.text_folder / f"caption_dict_{ir.text_name}.json")

    scores = score_colours(facts, rgb, said, withheld)
    report: dict[str, Any] = {
        "dataset": facts["spec"],
        "options": asdict(options),
        "withheld_training_people": len(withheld),
        "seconds": clock.parts,
        "colours": {name: asdict(score) | {"accuracy": score.accuracy} for name, score in scores.items()},
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


def link_images(dataset: Path, out: Path) -> None:
    """The same data set without its captions: links to everything else."""
    out.mkdir(parents=True, exist_ok=True)
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
        key = (person["palette"]["upper"], person["palette"]["lower"])
        pairs.setdefault(key, {"train": [], "test": []})[person["split"]].append(int(number))
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


def _train(
    name: str, init: str, pairs: Sequence[TextPair], work: Path, steps: int, rate: float, seed: int
) -> Captioner:
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


def _train_infrared(
    rgb: SourceSet, ir: SourceSet, captions: Mapping[str, str], colour_filter: str, work: Path, options: DemoOptions
) -> Captioner:
    made = make_ir_pairs(rgb, ir, captions, colour_filter=colour_filter, per_image=4, seed=options.seed)
    pairs = [TextPair(str(ir.folder / entry["image"]), tuple(entry["caption"])) for entry in made]
    name = "ir" if colour_filter == "strict" else "ir_unfiltered"
    return _train(name, str(work / "rgb"), pairs, work, options.ir_steps, 7e-4, options.seed)


class _Clock:
    """Seconds of each part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, part: str) -> None:
        now = time.perf_counter()
        self.parts[part], self._last = round(now - self._last, 1), now
        logger.info(f"{part}: {self.parts[part]} s")


# --- truth ------------------------------------------------------------------------------------------------------------


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
    met = {
        (person["palette"]["upper"], person["palette"]["lower"])
        for number, person in people.items()
        if person["split"] == "train" and number not in withheld
    }
    scores = {name: ColourScore() for name in ("all", "known colours", "new colours", "person")}
    seen: dict[str, set[int]] = {name: set() for name in scores}
    for source in rgb.sources:
        person = people[source.pid]
        if person["split"] != "test":
            continue
        palette, falsified = person["palette"], facts["images"][source.key]["seen"]
        new = (palette["upper"], palette["lower"]) not in met
        said = garment_colours(captions.get(source.key, ""))
        for slot, names in _GARMENTS.items():
            colours = set().union(*(said.get(name, set()) for name in names))
            drawn = falsified.get(slot, palette[slot])
            for group, truth in (("all", drawn), ("new colours" if new else "known colours", drawn), ("person", palette[slot])):
                score = scores[group]
                score.drawn += 1
                score.named += bool(colours)
                score.right += colours == {truth}
                seen[group].add(source.pid)
    for group, score in scores.items():
        score.people = len(seen[group])
    return scores


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
        "| test people | people | right of all drawn | right of all named |",
        "|---|---:|---:|---:|",
    ]
    for name, score in report["colours"].items():
        label = "all, against the person's own colours (light falsifies some)" if name == "person" else name
        named = score["right"] / max(1, score["named"])
        lines.append(f"| {label} | {score['people']} | {score['accuracy']:.1%} | {named:.1%} |")
    infrared = report["infrared"]
    lines += ["", f"Infrared captions: {infrared['captions']}, {infrared['with_colour']} of them name a colour."]
    if "infrared_without_filter" in report:
        control = report["infrared_without_filter"]
        lines.append(f"Without the colour filter in training: {control['with_colour']} of {control['captions']} name one.")
    total = sum(report["seconds"].values())
    lines += ["", f"Time: {total:.0f} s (" + ", ".join(f"{part} {s:.0f} s" for part, s in report["seconds"].items()) + ")."]
    return "\n".join(lines) + "\n"
