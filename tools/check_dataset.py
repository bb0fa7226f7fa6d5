"""Count a data set's identities, images and captions, compare with the published numbers, name what is missing.

Own data (`table`, `folder`) has no published numbers: every row that is wrong is explained instead.

Exit status 0 if everything is there and as published, else 1.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.data.datasets.check import DATASETS, check_dataset
from tvilfm_plugin.data.datasets.check_own import check_own
from tvilfm_plugin.data.datasets.own import OWN
from tvilfm_plugin.evaluation.protocols import LLCM, PROTOCOLS
from tvilfm_plugin.files.writing import write_text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=[*sorted(DATASETS), *sorted(OWN)])
    parser.add_argument(
        "--root",
        default=os.environ.get("FASTREID_DATASETS", "datasets"),
        help="folder that holds the data sets (default: $FASTREID_DATASETS or datasets)",
    )
    parser.add_argument("--folder", default="", help="the data set's folder below the root (default: its own names)")
    parser.add_argument("--trial", type=int, default=1, help="RegDB's train/test split, 1..10")
    parser.add_argument("--rules", default=LLCM.name, choices=list(PROTOCOLS), help="own data: as DATASETS.RULES")
    parser.add_argument("--any-size", action="store_true", help="do not compare with the published counts")
    parser.add_argument("--no-text", action="store_true", help="do not look for captions")
    parser.add_argument("--decode", action="store_true", help="decode every image and name the unreadable ones")
    parser.add_argument("--max", type=int, default=20, help="files named per list (default 20)")
    parser.add_argument("--out", help="write the report with all files to this file")
    args = parser.parse_args(argv)
    text = not args.no_text
    if args.dataset in OWN:
        report = check_own(args.dataset, args.root, args.folder, PROTOCOLS[args.rules], text, args.decode)
    else:
        report = check_dataset(args.dataset, args.root, args.folder, args.trial, not args.any_size, text, args.decode)
    print(report.to_text(args.max))
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, report.to_text() + "\n")
        print(f"Full list: {out}")
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
