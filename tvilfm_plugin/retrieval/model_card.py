"""The model card of a model folder: README.md as the hub shows it, made from what config.json says."""

import json
from collections.abc import Mapping
from typing import Any

from tvilfm_plugin.evaluation.report import NO_TEXT, ProtocolCard, aligned

ON_REQUEST = (
    "Its authors give it out for academic research, on request; ask them before you pass weights on or use them for more."
)
TERMS = {
    "sysu": f"SYSU-MM01 with the captions of Tri-SYSU-MM01. {ON_REQUEST}",
    "regdb": f"RegDB with the captions of Tri-RegDB. {ON_REQUEST}",
    "llcm": f"LLCM with the captions of Tri-LLCM. {ON_REQUEST}",
}
SYNTHETIC = "Synthetic people, drawn by `tvilfm data make` (body mesh CC0). Nobody was filmed."
UNKNOWN = "Not recorded. Whoever exported the weights knows whose pictures these were, and under which terms."
METRICS = ("R-1", "mAP")


def model_card(described: Mapping[str, Any], terms: str = "") -> str:
    """Markdown with the hub's front matter, of config.json's content; `terms` of the training data, "" = by its name."""
    architecture, text = described["architecture"], described["tower"] is not None
    asks = "an infrared image, words, or both" if text else "an infrared image"
    sections = [
        _front_matter(text),
        f"# {architecture}: visible-infrared person re-identification{' with text' if text else ''}",
        f"Finds a person in a gallery of visible images by {asks}. Features have {described['dim']} numbers and length 1; "
        f"members of the ensemble: {', '.join(described['members'])}.",
        f"## Use\n\n```python\n{_use(text)}\n```\n\nNeeds the package `tvilfm-plugin` (and fast-reid 1.4.0).",
        f"## Training data\n\n{_training(described, terms)}",
        f"## Measured\n\n{_measured(described['protocol'], described['weights'])}",
        "## Intended use\n\nResearch on cross-modal person retrieval, and comparisons under a stated protocol.\n\n"
        "Not for: identifying people without a legal basis and their knowledge; decisions about a person without a human who "
        "looks at the pictures; a similarity taken for a probability (`tvilfm results thresholds` measures thresholds).",
        f"## Domain\n\n{_domain(described)}",
        f"## Files\n\n{_files(described)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(text: bool) -> str:
    tags = ["person-re-identification", "visible-infrared", *(["text-to-image-retrieval"] if text else []), "fast-reid"]
    lines = ["library_name: tvilfm-plugin", "pipeline_tag: image-feature-extraction", "license: other", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def _use(text: bool) -> str:
    words = ', "a woman in a red coat", "a woman in a coat"' if text else ""
    return (
        "import tvilfm_plugin\nfrom tvilfm_plugin.retrieval.retriever import Retriever\n\n"
        'retriever = Retriever.from_pretrained("THIS_FOLDER")    # or the id of this page on the hub\n'
        f'retriever.embed_gallery("PICTURES")\nhits, note = retriever.search("infrared.png"{words})'
    )


def _synthetic(described: Mapping[str, Any]) -> bool:
    """Whether every measurement says that the data set's people are synthetic, and that data set was trained on."""
    cards = [card for one in (described["protocol"] or {}).values() for card in one["cards"].values()]
    datasets = described["config"]["DATASETS"]
    same = list(datasets["NAMES"]) == list(datasets["TESTS"])
    return same and bool(cards) and all(card["dataset"].startswith("synthetic") for card in cards)


def _training(described: Mapping[str, Any], terms: str) -> str:
    synthetic = _synthetic(described)
    lines = []
    for one in described["provenance"]["trained_on"]:
        known = SYNTHETIC if synthetic else TERMS.get(one["dataset"], UNKNOWN)
        layout = " (the layout's name)" if synthetic and one["dataset"] in TERMS else ""
        people = f"{len(one['identities'])} people of `{one['dataset']}`{layout}, split {one['trial']}"
        lines.append(f"- {people} (sha256 of the identities {one['sha256'][:12]}). {terms or known}")
    rule = described["provenance"]["epoch_rule"]
    preset = described["config"]["TVILFM"]["PRESET"]
    return "\n".join(lines or [f"- {terms or UNKNOWN}"]) + f"\n\nWeights of: {rule}. Preset: {preset}."


def _measured(protocol: Mapping[str, Any] | None, weights: Mapping[str, Any]) -> str:
    if protocol is None:
        return (
            "Nothing: no evaluation lay beside these weights when the folder was written. They give features; `tvilfm eval` "
            "refuses them."
        )
    parts = []
    for one in protocol.values():
        cards = {label: ProtocolCard(**card) for label, card in one["cards"].items()}
        rows = [["row", "text source", *(f"{metric} [95 % interval]" for metric in METRICS)]]
        for label, card in cards.items():
            values = (one["intervals"].get(label, {}).get(metric) for metric in METRICS)
            rows.append([label, card.text_source, *("{:.2f} [{:.2f}, {:.2f}]".format(*v) if v else "" for v in values)])
        name = next(iter(cards.values())).dataset
        parts.append("\n".join([f"### {name}", "", *aligned(rows, names=2)]))
        with_text = [card for card in cards.values() if card.text_source != NO_TEXT]
        shown = [next(iter(cards.values())), *with_text[:1]]
        parts += [f"Protocol card: {card}" for card in dict.fromkeys(shown)]
        if any(card.text_source == "oracle" for card in with_text):
            parts.append("Source `oracle` picks the text by the query's true identity, which no deployed system knows.")
    parts.append("Percent; percentile bootstrap over the query identities.")
    if weights["dtype"] != "float32" or weights["words"] != "all":
        parts.append(
            f"Measured with the weights in full ({weights['of'][:12]}); stored here in {weights['dtype']}, "
            f"words: {weights['words']}."
        )
    return "\n\n".join(parts)


def _domain(described: Mapping[str, Any]) -> str:
    if _synthetic(described):
        return "These weights know synthetic people only: on photographs of real people they are a demonstration, no more."
    return (
        "Cameras, clothes, seasons and infrared wavelengths other than those of the training data cost accuracy. "
        "Measure on your own people first (docs/own_data.md), and fine-tune: `tvilfm train CONFIG MODEL.WEIGHTS FOLDER`."
    )


def _files(described: Mapping[str, Any]) -> str:
    weights = described["weights"]
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    tower = described["tower"]
    tower = tower if isinstance(tower, str) else json.dumps((tower or {}).get("text_cfg", tower))
    return "\n".join(
        [
            f"- `{weights['file']}`: {weights['parameters']:,} numbers, {weights['dtype']}, sha256 `{weights['sha256']}`",
            f"- `config.json`: architecture {described['architecture']}, preprocessing "
            f"{json.dumps(described['preprocessing'])}, text tower {tower}; words: {weights['words']}",
            f"- written by {versions}",
        ]
    )
