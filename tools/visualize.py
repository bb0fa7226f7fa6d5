"""Pictures of a run, from what its evaluation stored: single files (PNG or SVG, by suffix), or one HTML report.

    python tools/visualize.py report RUN [--baseline RUN_B --initial RUN_0 --before RUN_1] [--out report.html]
    python tools/visualize.py sheet|cmc|distances|tsne|offsets|failures|robustness RUN ... [--out picture.svg]
    python tools/visualize.py attention --weights BASELINE/model_final.pth MPL/model_final.pth [--config-file FILE]
    python tools/visualize.py prompts --weights FUSION/model_final.pth GENERATOR/model_final.pth

Runs are output folders that were evaluated with TEST.STORE True. Only `attention` and `prompts` (of MIP) run a network.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
import numpy as np
from tqdm import tqdm

from tvilfm_plugin.data.loaders import build_eval_loader
from tvilfm_plugin.engine import load_model
from tvilfm_plugin.evaluation.evaluator import load_evaluation
from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.files.writing import write_text
from tvilfm_plugin.modeling.mip.mip import MIP
from tvilfm_plugin.visualization import run_report
from tvilfm_plugin.visualization.figures import FORMATS, save_figure
from tvilfm_plugin.visualization.mip_pictures import build_attention, pick_layer, prompt_map, read_rows, rows_of_people
from tvilfm_plugin.visualization.run_report import PICTURES, Wanted
from tvilfm_plugin.visualization.systems import (
    ASKED,
    BACKBONE,
    BASELINE,
    ENSEMBLE,
    IMAGE,
    INITIAL,
    OURS,
    System,
    evaluation_of,
    open_system,
)
from tvilfm_plugin.visualization.tsne import build_maps, choose_people


def wanted(args: argparse.Namespace) -> Wanted:
    """The systems that the command line names."""
    load = functools.cache(load_evaluation)  # the run's own is asked for twice
    folder = evaluation_of(args.run, args.dataset)
    has_text = bool(load(folder).text_index)
    query = args.type or (ENSEMBLE if has_text else IMAGE)
    name = args.name or (OURS if query == ENSEMBLE else query)
    ours = open_system(name, folder, load, query=query, setting=args.setting, source=args.source)
    card = ours.stored.card(ours.label)

    def another(name: str, run: Path, query: str) -> System:
        return open_system(
            name, evaluation_of(run, folder.name), load, query=query, setting=card.setting, source=card.text_source
        )

    backbone = args.backbone
    if backbone is None and next((args.run / "stage1").glob("evaluation/*/results.json"), None):
        backbone = args.run / "stage1"
    given = {INITIAL: args.initial, BACKBONE: backbone, BASELINE: args.baseline}
    others = [another(name, run, ASKED[name]) for name, run in given.items() if run is not None]
    before = another(run_report.BEFORE, args.before, query) if args.before else None
    return Wanted(
        ours=ours, others=others, before=before, queries=args.queries, people=args.people, seed=args.seed,
        resamples=args.resamples, kind=args.format,
    )  # fmt: skip


def draw_stored(args: argparse.Namespace) -> int:
    """A report or one picture from stored evaluations."""
    what = wanted(args)
    if args.command == "report":
        out = args.out or what.ours.folder / "report.html"
        bar = lambda names: tqdm(names, desc="Drawing", unit="section", leave=False, disable=None)
        page = run_report.report(what, bar)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page)
        print(f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
        return 0
    for suffix, figure, cells in PICTURES[args.command](what):
        out = args.out or what.ours.folder / f"{args.command}.{args.format}"
        print(f"Picture: {save_figure(figure, out.with_stem(out.stem + suffix))}")
        if cells:
            print("\n".join(["", *aligned(cells, names=1), ""]))
    return 0


# --- MIP --------------------------------------------------------------------------------------------------------------


def open_mip(args: argparse.Namespace) -> dict[str, tuple[Any, MIP]]:
    """Name -> configuration and model of every weights file."""
    configs = args.config_file or [weights.parent / "config.yaml" for weights in args.weights]
    configs = configs * len(args.weights) if len(configs) == 1 else configs
    names = args.names or [weights.parent.name for weights in args.weights]
    if len(configs) != len(args.weights) or len(names) != len(args.weights) or len(set(names)) < len(names):
        raise ValueError(
            f"{len(args.weights)} weights, {len(configs)} config files and {len(set(names))} different names: give one config "
            "file for all or one each, and --names that tell the models apart."
        )
    found = {}
    for name, config, weights in zip(names, configs, args.weights, strict=True):
        cfg, model = load_model(config, weights, opts=args.opts)
        if not isinstance(model, MIP):
            raise ValueError(f"{config} describes a {type(model).__name__}; these pictures are of MIP models.")
        found[name] = cfg, model
    return found


def attention(args: argparse.Namespace) -> int:
    """The same images under the eyes of several models, side by side."""
    models = open_mip(args)
    data = build_eval_loader(next(iter(models.values()))[0], args.dataset or _dataset(models), False).dataset
    people = choose_people(_pids(data.query_items), _pids(data.gallery_items), args.people or 4, args.seed)
    rows = rows_of_people(data, people, 1, args.seed)
    # Person by person: her infrared image, then her visible one.
    rows_shown = rows.reshape(2, -1).T.reshape(-1)
    position = {int(row): i for i, row in enumerate(rows)}
    order = [position[int(row)] for row in rows_shown]
    maps = {}
    for name, (_, model) in models.items():
        values = read_rows(model.visual, data, rows).attention.numpy()
        maps[name] = values[order, pick_layer(values.shape[1], args.layer)]
    samples = [data[int(row)] for row in rows_shown]
    images = [np.asarray(sample["images"]).transpose(1, 2, 0) for sample in samples]
    labels = [f"person {sample['targets']}, {sample['modality']}" for sample in samples]
    title = f"Attention of the class token in {_block(args.layer)}, mean over heads; one colour scale"
    out = args.out or args.weights[-1].parent / f"attention.{args.format}"
    print(f"Picture: {save_figure(build_attention(images, labels, maps, title), out)}")
    return 0


def prompts(args: argparse.Namespace) -> int:
    """Where the instance prompts of several models lie."""
    models = open_mip(args)
    data = build_eval_loader(next(iter(models.values()))[0], args.dataset or _dataset(models), False).dataset
    people = choose_people(_pids(data.query_items), _pids(data.gallery_items), args.people or 20, args.seed)
    rows = rows_of_people(data, people, args.images, args.seed)
    maps = {}
    for name, (_, model) in models.items():
        bar = lambda batches, name=name: tqdm(batches, desc=f"Encoding ({name})", unit="batch", leave=False, disable=None)
        found = read_rows(model.visual, data, rows, bar).instance_prompts
        maps[name] = prompt_map(data, rows, found, args.layer, args.seed)
    title = f"Instance prompts of {_block(args.layer)}, {len(people)} people"
    out = args.out or args.weights[-1].parent / f"prompts.{args.format}"
    print(f"Picture: {save_figure(build_maps(maps, title, 'infrared'), out)}")
    return 0


def _block(layer: int) -> str:
    return "the last block" if layer == -1 else f"block {layer}"


def _pids(items: Sequence[Any]) -> np.ndarray:
    return np.array([item.pid for item in items])


def _dataset(models: dict[str, tuple[Any, MIP]]) -> str:
    return str(next(iter(models.values()))[0].DATASETS.TESTS[0])


# --- command line -----------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--out", type=Path, help="the file (default: in the run's evaluation, or beside the last weights)")
    shared.add_argument("--format", choices=FORMATS, default="png", help="without --out, and inside a report (default: png)")
    shared.add_argument("--dataset", default="", help="registered name, where there are several")
    shared.add_argument("--seed", type=int, default=0, help="of the choice of people, of t-SNE and of the bootstrap")
    for name, described in {"report": "everything in one self-contained HTML file", **DESCRIBED}.items():
        one = commands.add_parser(name, help=described, description=described, parents=[shared])
        one.add_argument("run", type=Path, help="output folder of the run")
        one.add_argument("--backbone", type=Path, help="stage 1 run (default: RUN/stage1 if its evaluation is stored)")
        one.add_argument("--baseline", type=Path, help="run of ablation B (TVILFM.FUSION Add, without MJL)")
        one.add_argument("--initial", type=Path, help="untrained model: a stage-1 config with SOLVER.MAX_EPOCH 0")
        one.add_argument("--before", type=Path, help="RUN before stage 2: its config, stage-1 weights, SOLVER.MAX_EPOCH 0")
        one.add_argument("--setting", default="", help="e.g. all (default: the first)")
        one.add_argument("--source", default="", help="text source (default: the run's first)")
        one.add_argument("--type", default="", help="query type of RUN (default: ensemble, without text infrared)")
        one.add_argument("--name", default="", help="of RUN in the pictures")
        one.add_argument("--queries", type=int, default=4, help="on a sheet, evenly spread over all (failures: the worst)")
        one.add_argument("--people", type=int, default=20, help="on a t-SNE map")
        one.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
        one.set_defaults(function=draw_stored)
    mip: dict[str, Callable[[argparse.Namespace], int]] = {"attention": attention, "prompts": prompts}
    for name, function in mip.items():
        one = commands.add_parser(name, help=function.__doc__, description=function.__doc__, parents=[shared])
        one.add_argument("--weights", type=Path, nargs="+", required=True, help="one model per file")
        one.add_argument("--config-file", type=Path, nargs="+", help="for all, or one each (default: config.yaml beside each)")
        one.add_argument("--names", nargs="+", help="of the models (default: their folders)")
        one.add_argument("--layer", type=int, default=-1, help="block, from the end if negative (default: the last)")
        one.add_argument("--people", type=int, help="default: 4 for attention, 20 for prompts")
        one.add_argument("--images", type=int, default=8, help="of each person and modality on the map of the prompts")
        one.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of every configuration")
        one.set_defaults(function=function)
    return parser.parse_args(argv)


DESCRIBED = {
    "sheet": "the same queries asked of every system, with texts and right or wrong (Fig. 6)",
    "cmc": "CMC curves with bootstrap bands: query types of the run, and systems",
    "distances": "distances of same and different people for every system (Fig. 4, e-h)",
    "tsne": "map of twenty people for every system (Fig. 4, a-d)",
    "offsets": "cosines of image and text offsets, before and after stage 2 (Eq. 6)",
    "failures": "the queries whose first match ranks worst",
    "robustness": "curves that tools/robustness.py measured",
}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    return int(args.function(args))


if __name__ == "__main__":
    sys.exit(main())
