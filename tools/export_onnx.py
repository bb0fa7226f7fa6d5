"""Write a trained model as ONNX graphs that `tvilfm_plugin.runtime` searches with, and compare them with the model.

`python tools/export_onnx.py --config-file RUN/config.yaml --weights RUN/model_final.pth --out DIR --gallery PICTURES`

Exit status 1, and no export.json, if the export differs from the model.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tvilfm_plugin.export.writing import ParityError, export_retriever
from tvilfm_plugin.files.writing import sha256_of
from tvilfm_plugin.retrieval.retriever import Retriever


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="that of the run: RUN/config.yaml")
    parser.add_argument("--weights", required=True, help="RUN/model_final.pth")
    parser.add_argument("--out", required=True, help="folder of the export")
    parser.add_argument("--gallery", default="", help="folder of visible pictures whose ranking is compared as well")
    parser.add_argument("--queries", default="", help="folder of infrared pictures to search with (default: the gallery's)")
    parser.add_argument("opts", nargs="*", help="KEY VALUE overrides of the config")
    args = parser.parse_args(argv)
    retriever = Retriever.from_checkpoint(args.config_file, args.weights, device="cpu", opts=args.opts)
    notes = {"weights_file": {"name": Path(args.weights).name, "sha256": sha256_of(Path(args.weights))}}
    try:
        parity = export_retriever(
            retriever, args.out, gallery=args.gallery, queries=args.queries, notes=notes, quiet=False
        )
    except ParityError as error:
        print(error)
        return 1
    print(parity)
    for path in sorted(Path(args.out).iterdir()):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
