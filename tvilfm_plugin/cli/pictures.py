"""`tvilfm results report|sheet|cmc|...`: pictures of a run from what its evaluation stored, and MIP's from its weights."""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvilfm_plugin.cli.command import Command, Parser

FORMATS = ("png", "svg")
STORED = {
    "report": "everything in one self-contained HTML file",
    "sheet": "the same queries asked of every system, with texts and right or wrong (Fig. 6)",
    "cmc": "CMC curves with bootstrap bands: query types of the run, and systems",
    "distances": "distances of same and different people for every system (Fig. 4, e-h)",
    "tsne": "map of twenty people for every system (Fig. 4, a-d)",
    "offsets": "cosines of image and text offsets, before and after stage 2 (Eq. 6)",
    "failures": "the queries whose first match ranks worst",
    "curves": "the robustness curves that `tvilfm results robustness` measured",
}


def _shared(parser: Parser) -> None:
    parser.option("--out", help="the file (default: in the run's evaluation, or beside the last weights)")
    parser.option("--format", choices=FORMATS, default="png", help="without --out, and inside a report")
    parser.option("--dataset", default="", help="registered name, where there are several")
    parser.option("--seed", type=int, default=0, help="of the choice of people, of t-SNE and of the bootstrap")


def _stored_options(parser: Parser) -> None:
    _shared(parser)
    parser.positional("run", type=Path, help="output folder of the run")
    parser.option("--backbone", type=Path, help="stage 1 run (default: RUN/stage1 if its evaluation is stored)")
    parser.option("--baseline", type=Path, help="run of ablation B (TVILFM.FUSION Add, without MJL)")
    parser.option("--initial", type=Path, help="untrained model: a stage-1 config with TEST.UNTRAINED True")
    parser.option("--before", type=Path, help="RUN before stage 2: its config, stage-1 weights, TEST.UNTRAINED True")
    parser.option("--setting", default="", help="e.g. all (default: the first)")
    parser.option("--source", default="", help="text source (default: the run's first)")
    parser.option("--type", default="", help="query type of RUN (default: ensemble, without text infrared)")
    parser.option("--name", default="", help="of RUN in the pictures")
    parser.option("--queries", type=int, default=4, help="on a sheet, evenly spread over all (failures: the worst)")
    parser.option("--people", type=int, default=20, help="on a t-SNE map")
    parser.option("--resamples", type=int, default=10_000, help="of the bootstrap")


def _wanted(args: argparse.Namespace) -> Any:
    """The systems that the command line names."""
    from tvilfm_plugin.evaluation.evaluator import load_evaluation
    from tvilfm_plugin.visualization.systems_of_runs import systems_of_runs

    return systems_of_runs(
        functools.cache(load_evaluation),  # the run's own is asked for twice
        args.run, dataset=args.dataset, query=args.type, name=args.name, setting=args.setting, source=args.source,
        initial=args.initial, backbone=args.backbone, baseline=args.baseline, before=args.before, queries=args.queries,
        people=args.people, seed=args.seed, resamples=args.resamples, kind=args.format,
    )  # fmt: skip


def report(args: argparse.Namespace) -> int:
    """One HTML file."""
    from tqdm import tqdm

    from tvilfm_plugin.files.writing import make_folder, write_text
    from tvilfm_plugin.visualization import run_report

    what = _wanted(args)
    out = args.out or what.ours.folder / "report.html"
    page = run_report.report(what, lambda names: tqdm(names, desc="Drawing", unit="section", leave=False, disable=None))
    make_folder(out.parent)
    write_text(out, page)
    print(f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def draw(args: argparse.Namespace, name: str) -> int:
    """One kind of picture; prints its numbers."""
    from tvilfm_plugin.evaluation.report import aligned
    from tvilfm_plugin.visualization.figures import save_figure
    from tvilfm_plugin.visualization.run_report import PICTURES

    what = _wanted(args)
    for suffix, figure, cells in PICTURES[name](what):
        out = args.out or what.ours.folder / f"{name}.{args.format}"
        print(f"Picture: {save_figure(figure, out.with_stem(out.stem + suffix))}")
        if cells:
            print("\n".join(["", *aligned(cells, names=1), ""]))
    return 0


def _mip_options(parser: Parser, people: int, images: bool) -> None:
    _shared(parser)
    parser.option("--weights", type=Path, nargs="+", required=True, help="one model per file")
    configs = "for all, or one each (default: config.yaml beside each)"
    parser.option("--config-file", type=Path, nargs="+", help=configs)
    parser.option("--names", nargs="+", help="of the models (default: their folders)")
    parser.option("--layer", type=int, default=-1, help="block, from the end if negative (default: the last)")
    parser.option("--people", type=int, default=people, help="whose images")
    if images or parser.legacy:
        parser.option("--images", type=int, default=8, help="of each person and modality on the map of the prompts")


def _models(args: argparse.Namespace) -> Any:
    from tvilfm_plugin.visualization.mip_runs import open_models

    return open_models(args.weights, args.config_file or (), args.names or (), args.opts, args.dataset)


def attention(args: argparse.Namespace, build: Callable[..., Any] | None = None) -> int:
    """The attention of the class token; `build` stands in for `visualization.mip_pictures.build_attention`."""
    from tvilfm_plugin.visualization.figures import save_figure
    from tvilfm_plugin.visualization.mip_pictures import build_attention
    from tvilfm_plugin.visualization.mip_runs import attention_of

    figure = (build or build_attention)(*attention_of(_models(args), people=args.people, layer=args.layer, seed=args.seed))
    out = args.out or args.weights[-1].parent / f"attention.{args.format}"
    print(f"Picture: {save_figure(figure, out)}")
    return 0


def prompts(args: argparse.Namespace) -> int:
    """The map of the instance prompts."""
    from tvilfm_plugin.visualization.figures import save_figure
    from tvilfm_plugin.visualization.mip_runs import prompt_figure

    models = _models(args)
    figure = prompt_figure(models, people=args.people, images=args.images, layer=args.layer, seed=args.seed)
    out = args.out or args.weights[-1].parent / f"prompts.{args.format}"
    print(f"Picture: {save_figure(figure, out)}")
    return 0


PICTURES = {name: "robustness" if name == "curves" else name for name in STORED if name != "report"}
"""Command -> picture; `results robustness` measures what `results curves` draws."""
REPORT = Command(
    name="results report",
    help=STORED["report"],
    about="Runs are output folders that were evaluated with TEST.STORE True. No network runs.",
    options=_stored_options,
    work=report,
    examples=("tvilfm results report RUN --baseline RUN_B --initial RUN_0 --before RUN_1 --out report.html",),
)
DRAWN = tuple(
    Command(
        name=f"results {command}",
        help=STORED[command],
        about="Runs are output folders that were evaluated with TEST.STORE True. No network runs.",
        options=_stored_options,
        work=functools.partial(draw, name=picture),
        examples=(f"tvilfm results {command} RUN --out picture.svg",),
    )
    for command, picture in PICTURES.items()
)
ATTENTION = Command(
    name="results attention",
    help="the same images under the eyes of several MIP models, side by side",
    options=functools.partial(_mip_options, people=4, images=False),
    work=attention,
    overrides=True,
    examples=("tvilfm results attention --weights BASELINE/model_final.pth MPL/model_final.pth",),
)
PROMPTS = Command(
    name="results prompts",
    help="where the instance prompts of several MIP models lie",
    options=functools.partial(_mip_options, people=20, images=True),
    work=prompts,
    overrides=True,
    examples=("tvilfm results prompts --weights FUSION/model_final.pth GENERATOR/model_final.pth",),
)
COMMANDS = (REPORT, *DRAWN, ATTENTION, PROMPTS)
