"""Measure the text of a data set: `python tools/audit_captions.py --dataset sysu --out report/`.

Writes `audit.md`, `audit.json` and `lengths.png`. Exit status 1 if a finding exceeds its limit (`--fail-on KEY=SHARE`); by
default no image may lack a caption and no infrared text may name a colour.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.captioning.audit import Audit, audit_text, write_report
from tvilfm_plugin.captioning.dataset_audit import audit_dataset, subjects_of_texts
from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.datasets.check import DATASETS
from tvilfm_plugin.data.datasets.listing import find_one
from tvilfm_plugin.modality import Modality

DEFAULT_LIMITS = ("without_caption=0", "colour_in_caption=0", "colour_in_rephrase=0")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=sorted(DATASETS))
    parser.add_argument("--root", default=os.environ.get("FASTREID_DATASETS", "datasets"))
    parser.add_argument("--folder", default="", help="the data set's folder below the root")
    parser.add_argument("--trial", type=int, default=1, help="RegDB's split")
    parser.add_argument(
        "--text", type=Path, help="only these files (a folder with Blip_RGB/ and Blip_IR/), without looking for images"
    )
    parser.add_argument("--train-ids", default="", help="with --text: training identities, comma-separated (default: none)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument(
        "--fail-on", action="append", metavar="KEY=SHARE", help=f"may be repeated; default {' '.join(DEFAULT_LIMITS)}"
    )
    args = parser.parse_args(argv)
    limits = dict(parse_limit(parser, text) for text in args.fail_on or DEFAULT_LIMITS)
    kind = DATASETS[args.dataset]
    if args.text:
        audits, title = audit_files(args.text, args.dataset, args.train_ids), f"{kind.name} in {args.text}"
    else:
        audits = audit_dataset(args.dataset, args.root, args.folder, args.trial)
        title = kind.name
    if not audits:
        print("No captions found.")
        return 1
    files = write_report(audits, args.out, title)
    print(files[0].read_text(encoding="utf-8"))
    exceeded = [
        f"{audit.modality.value}: {found.key} {found.share:.2%} > {limits[found.key]:.2%}"
        for audit in audits
        for found in audit.findings
        if found.key in limits and found.share > limits[found.key]
    ]
    print("\n".join([f"Report: {args.out}", *[f"TOO MUCH: {line}" for line in exceeded]]))
    return 1 if exceeded else 0


def parse_limit(parser: argparse.ArgumentParser, text: str) -> tuple[str, float]:
    """ "key=0.01" as a pair."""
    key, _, share = text.partition("=")
    try:
        return key, float(share)
    except ValueError:
        parser.error(f"--fail-on {text!r}: expected KEY=SHARE, e.g. colour_in_caption=0.")


def audit_files(folder: Path, dataset: str, train_ids: str) -> list[Audit]:
    """Audit caption files alone: every image that they name is taken to exist."""
    kind = DATASETS[dataset]
    train = {int(number) for number in train_ids.replace(",", " ").split()}
    audits = []
    for modality, name in ((Modality.RGB, "Blip_RGB"), (Modality.IR, "Blip_IR")):
        home = folder / name
        texts, rephrases = (find_one(home, start, ".json") for start in ("caption_dict", "caption_llm_dict"))
        if texts or rephrases:
            bank = CaptionBank.from_files(texts, rephrases, None, kind.relative)
            captions = {key: bank[key] for key in bank}
            audits.append(audit_text(subjects_of_texts(captions, train), captions, modality, bank.source))
    return audits


if __name__ == "__main__":
    sys.exit(main())
