"""Turn a checkpoint of the authors (TVI-LFM or MIP) into one of ours, and report what became of every key.

    python tools/import_released.py --method tvilfm --weights model_Fusion_118.pth --out sysu.pth
    python tools/train_net.py --config-file projects/TVILFM/configs/sysu_released.yml --eval-only MODEL.WEIGHTS sysu.pth

A file of stage 1 (481 keys) belongs to `*_released_stage1.yml`, or starts stage 2; one of stage 2 (488) to `*_released.yml`.
RegDB: name the split that the file was trained on, so that it cannot be tested on its own training persons.
"""

import argparse
import os
import sys
from pathlib import Path

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
from tvilfm_plugin.checkpoints.import_released import METHODS, import_released
from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.data.datasets.check import DATASETS
from tvilfm_plugin.evaluation.provenance import Provenance, TrainingSet

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {"tvilfm": "projects/TVILFM/configs/sysu_released.yml", "mip": "projects/MIP/configs/sysu_released.yml"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", required=True, choices=sorted(METHODS))
    parser.add_argument("--weights", required=True, help="the authors' file")
    parser.add_argument("--out", required=True, help="the .pth file to write")
    parser.add_argument("--config-file", help="describes the model (default: the released preset for SYSU-MM01)")
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="data set it was trained on: its identities are recorded")
    parser.add_argument("--trial", type=int, default=1, help="RegDB's train/test split that it was trained on, 1..10")
    parser.add_argument("--root", default=os.environ.get("FASTREID_DATASETS", "datasets"), help="folder of the data sets")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs on top of the config")
    args = parser.parse_args(argv)
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file or str(ROOT / CONFIGS[args.method]))
    cfg.merge_from_list(args.opts)
    record = Provenance()
    if args.dataset:
        data = DATASETS[args.dataset](root=args.root, trial=args.trial, text=False, verbose=False)
        record = Provenance((TrainingSet(data.key, data.trial, tuple(sorted(data.train_ids))),))
    try:
        report = import_released(args.method, args.weights, args.out, cfg, record)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{report}\nwritten: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
