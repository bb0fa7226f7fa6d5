"""How good the text of a data set is: counts, variety, length, colours in infrared text, contradictions, leaks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tvilfm_plugin.captioning.attribute_audit import contradictions, coverage, drift, per_camera
from tvilfm_plugin.captioning.colour_filter import find_colours
from tvilfm_plugin.captioning.findings import EXAMPLES, Finding, Subject
from tvilfm_plugin.captioning.rows import write_json, write_text
from tvilfm_plugin.data.captions import Caption
from tvilfm_plugin.files.writing import atomic_file, make_folder
from tvilfm_plugin.modality import Modality

CONTEXT = 77
"""CLIP's tokens, the first and the last of which mark the ends."""


@dataclass
class Audit:
    """What is known of one modality's text: lengths in words and CLIP tokens, findings, `per_camera` of every camera."""

    modality: Modality
    images: int
    source: str
    findings: list[Finding] = field(default_factory=list)
    words: dict[str, list[int]] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    cameras: dict[str, dict[str, float]] = field(default_factory=dict)

    def finding(self, key: str) -> Finding:
        """The finding of that name."""
        for found in self.findings:
            if found.key == key:
                return found
        raise KeyError(f"No finding {key!r}; there are {', '.join(found.key for found in self.findings)}.")


def audit_text(
    subjects: Sequence[Subject],
    captions: Mapping[str, Caption],
    modality: Modality,
    source: str = "",
    query_texts: Mapping[int, Sequence[str]] | None = None,
) -> Audit:
    """Measure the captions of one modality.

    Args:
        subjects: the images that should have captions.
        query_texts: person -> the texts that test queries may draw, to be compared with what the gallery's images say.
    """
    known = [subject for subject in subjects if subject.key in captions]
    texts = {subject.key: captions[subject.key].text for subject in known}
    rephrases = {key: captions[key].rephrase for key in texts if captions[key].rephrase}
    audit = Audit(modality, len(subjects), source)
    audit.findings += [
        _missing(subjects, texts),
        Finding("rephrased", len(rephrases), len(texts), "captions with a rephrase"),
        *_variety(texts, rephrases),
    ]
    _lengths(audit, texts, rephrases)
    if modality is Modality.IR:
        audit.findings += [
            _colours("colour_in_caption", texts, "infrared captions that name a colour"),
            _colours("colour_in_rephrase", rephrases, "infrared rephrases that name a colour"),
        ]
    train = [subject for subject in known if subject.train]
    audit.findings += [
        *coverage(texts, modality),
        *contradictions(train, texts, modality),
        _shared(known, texts),
        *drift(texts, rephrases, modality),
    ]
    audit.cameras = per_camera(known, texts, rephrases, modality)
    if query_texts is not None and any(subject.gallery for subject in known):
        audit.findings += _overlap(known, texts, query_texts)
    return audit


def _missing(subjects: Sequence[Subject], texts: Mapping[str, str]) -> Finding:
    without = [subject.key for subject in subjects if subject.key not in texts]
    return Finding("without_caption", len(without), len(subjects), "images without a caption", without[:EXAMPLES])


def _variety(texts: Mapping[str, str], rephrases: Mapping[str, str]) -> list[Finding]:
    counted = Counter(texts.values())
    often = [f"{count} x {text}" for text, count in counted.most_common(EXAMPLES) if count > 1]
    return [
        Finding("distinct", len(counted), len(texts), "distinct captions", often),
        Finding("distinct_rephrases", len(set(rephrases.values())), len(rephrases), "distinct rephrases"),
    ]


def _lengths(audit: Audit, texts: Mapping[str, str], rephrases: Mapping[str, str]) -> None:
    for what, found in (("captions", texts), ("rephrases", rephrases)):
        if not found:
            continue
        audit.words[what] = [len(text.split()) for text in found.values()]
        audit.tokens[what] = count_tokens(list(found.values()))
        long = [key for key, tokens in zip(found, audit.tokens[what], strict=True) if tokens > CONTEXT]
        audit.findings.append(
            Finding(
                f"truncated_{what}", len(long), len(found), f"{what} that CLIP's {CONTEXT} tokens cut off",
                [f"{key}: {found[key][:120]}" for key in long[:EXAMPLES]],
            )
        )  # fmt: skip


def count_tokens(texts: Sequence[str]) -> list[int]:
    """CLIP tokens of each text, both ends included, without a limit."""
    from tvilfm_plugin.data.open_clip_files.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    counted: dict[str, int] = {}
    for text in texts:
        if text not in counted:
            counted[text] = len(tokenizer.encode(tokenizer.clean_fn(text))) + 2
    return [counted[text] for text in texts]


def _colours(key: str, texts: Mapping[str, str], meaning: str) -> Finding:
    found = {name: colours for name, text in texts.items() if (colours := find_colours(text))}
    examples = [f"{name}: {', '.join(colours)}" for name, colours in list(found.items())[:EXAMPLES]]
    return Finding(key, len(found), len(texts), meaning, examples)


def _shared(known: Sequence[Subject], texts: Mapping[str, str]) -> Finding:
    persons: dict[str, set[int]] = {}
    for subject in known:
        persons.setdefault(texts[subject.key], set()).add(subject.pid)
    shared = sorted(((len(pids), text) for text, pids in persons.items() if len(pids) > 1), reverse=True)
    examples = [f"{count} persons: {text}" for count, text in shared[:EXAMPLES]]
    return Finding("shared", len(shared), len(persons), "distinct captions that several identities share", examples)


def _overlap(known: Sequence[Subject], texts: Mapping[str, str], query_texts: Mapping[int, Sequence[str]]) -> list[Finding]:
    """Query texts that are the very caption of a gallery image: such a query knows what the gallery says."""
    in_gallery = {texts[subject.key] for subject in known if subject.gallery}
    drawn = [(pid, text) for pid, said in query_texts.items() for text in said]
    own = [text for _, text in drawn if text in in_gallery]
    meaning = "texts that test queries may draw (oracle) which are captions of gallery images"
    return [Finding("query_text_in_gallery", len(own), len(drawn), meaning)]


def write_report(audits: Sequence[Audit], folder: Path, title: str) -> list[Path]:
    """Markdown, JSON and a plot."""
    files = [
        write_text(folder / "audit.md", _markdown(audits, title)),
        write_json(folder / "audit.json", {"title": title, "text": [as_dict(audit) for audit in audits]}),
        folder / "lengths.png",
    ]
    _plot_lengths(audits, files[-1])
    return files


def as_dict(audit: Audit) -> dict[str, Any]:
    """An audit as JSON has it: figures, without the length of every text."""
    return {
        "modality": audit.modality.value,
        "source": audit.source,
        "images": audit.images,
        "findings": {f.key: {k: v for k, v in asdict(f).items() if k != "key"} | {"share": f.share} for f in audit.findings},
        "cameras": audit.cameras,
        "mean_words": {what: sum(counts) / len(counts) for what, counts in audit.words.items()},
        "most_words": {what: max(counts) for what, counts in audit.words.items()},
        "mean_tokens": {what: sum(counts) / len(counts) for what, counts in audit.tokens.items()},
        "most_tokens": {what: max(counts) for what, counts in audit.tokens.items()},
    }


def _markdown(audits: Sequence[Audit], title: str) -> str:
    lines = [f"# Text of {title}", ""]
    for audit in audits:
        lines += [f"## {audit.modality.value.upper()}: {audit.images} images", "", f"Source: {audit.source}", ""]
        lines += ["| finding | count | of | share |", "|---|---:|---:|---:|"]
        lines += [f"| {f.meaning} (`{f.key}`) | {f.count} | {f.of} | {f.share:.1%} |" for f in audit.findings]
        for what in audit.words:
            words, tokens = audit.words[what], audit.tokens[what]
            lines.append(
                f"| words per text, {what}: mean {sum(words) / len(words):.1f}, most {max(words)}; CLIP tokens: mean "
                f"{sum(tokens) / len(tokens):.1f}, most {max(tokens)} | {len(words)} | | |"
            )
        lines.append("")
        if audit.cameras:
            columns = ("camera", "captions", "attributes per caption", "with unread words", "rephrases refused")
            lines += [f"| {' | '.join(columns)} |", "|---|---:|---:|---:|---:|"]
            for camera, one in audit.cameras.items():
                lines.append(
                    f"| {camera} | {one['captions']} | {one['attributes']:.1f} | {one['unread']:.1%} | {one['drift']:.1%} |"
                )
            lines.append("")
        for f in audit.findings:
            if f.examples:
                lines += [f"`{f.key}`, for example:", "", *[f"- {example}" for example in f.examples], ""]
    lines += [
        "Contradictions are looked for among training identities only: to repair them one needs the identities, and test",
        "identities are the answers. `lengths.png` shows the lengths.",
    ]
    return "\n".join(lines) + "\n"


def _plot_lengths(audits: Sequence[Audit], file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * max(1, len(audits)), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for n, audit in enumerate(audits):
        axes = figure.add_subplot(1, len(audits), n + 1)
        most = max([CONTEXT + 10, *(max(counts) for counts in audit.tokens.values())])
        for what, counts in audit.tokens.items():
            axes.hist(counts, bins=range(0, most + 2, 2), histtype="step", linewidth=1.6, label=what)
        axes.axvline(CONTEXT, color="black", linestyle="--", linewidth=1)
        axes.text(CONTEXT, axes.get_ylim()[1], f" {CONTEXT}", va="top", fontsize=8)
        axes.set_title(f"{audit.modality.value.upper()} text")
        axes.set_xlabel("CLIP tokens")
        axes.set_ylabel("texts")
        if audit.tokens:
            axes.legend(fontsize=8)
    make_folder(file.parent)
    with atomic_file(file) as stream:
        figure.savefig(stream, dpi=110, format="png")
