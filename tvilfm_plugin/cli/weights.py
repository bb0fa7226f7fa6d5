"""`tvilfm export`, `tvilfm import`, `tvilfm pretrain`: weights that leave, that come, and the demo's stand-ins."""

import argparse
import os
import time
from pathlib import Path

from tvilfm_plugin.cli.command import Command, Parser
from tvilfm_plugin.cli.data import BENCHMARKS, TEXT_PERSON, root_option
from tvilfm_plugin.cli.run_folder import config_and_weights, model_options

METHODS = ("agw", "caj", "ddag", "deen", "mip", "mmn", "tvilfm", "yyds")


def _export_options(parser: Parser) -> None:
    model_options(parser)
    parser.option("--out-dir", old=("--out",), required=True, help="folder of the export")
    forms = (
        "onnx: graphs for tvilfm_plugin.runtime; folder: one folder for Retriever.from_pretrained, with a model card; tracker: "
        "one graph of crops for trackers that run ONNX encoders (Ultralytics)"
    )
    parser.option("--format", choices=("onnx", "folder", "tracker"), default="onnx", help=forms)
    parser.option("--modality", choices=("rgb", "ir"), default="rgb", help="tracker: what the camera sees")
    parser.option("--gallery", default="", help="folder of visible pictures whose ranking is compared as well")
    queries = "folder of infrared pictures to search with (default: the gallery's)"
    parser.option("--query-dir", old=("--queries",), dest="queries", default="", help=queries)
    parser.option("--half", action="store_true", help="folder: in half precision, half the size")
    parser.option("--words", type=Path, help="folder: text file; the text tower keeps the words of this file alone")
    parser.option("--terms", default="", help="folder: terms of the training data, for the model card")


def export(args: argparse.Namespace) -> int:
    """Write the folder; or the graphs, which are compared with the model: 1 if they differ."""
    from tvilfm_plugin.export.writing import ParityError, export_retriever
    from tvilfm_plugin.files.writing import sha256_of
    from tvilfm_plugin.retrieval.retriever import Retriever

    config, weights = config_and_weights(args)
    retriever = Retriever.from_checkpoint(config, weights, device="cpu", opts=args.opts)
    if args.format == "folder":
        words = args.words.read_text(encoding="utf-8").splitlines() if args.words else ()
        dtype = "float16" if args.half else "float32"
        retriever.save_pretrained(args.out_dir, dtype=dtype, words=words, terms=args.terms)
        return _list_files(args.out_dir)
    if args.format == "tracker":
        from tvilfm_plugin.export.crop_encoder import export_crop_encoder

        path, difference = export_crop_encoder(retriever, args.out_dir, args.modality)
        print(f"{path}: differs from the model by {difference:.1e} at most")
        return 0
    notes = {"weights_file": {"name": weights.name, "sha256": sha256_of(weights)}}
    try:
        parity = export_retriever(retriever, args.out_dir, gallery=args.gallery, queries=args.queries, notes=notes, quiet=False)
    except ParityError as error:
        print(error)
        return 1
    print(parity)
    return _list_files(args.out_dir)


def _list_files(folder: Path) -> int:
    for path in sorted(folder.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.2f} MB  {path}")
    return 0


def _import_options(parser: Parser) -> None:
    parser.option("--method", required=True, choices=METHODS, help="whose file it is")
    parser.option("--weights", required=True, help="the authors' file")
    parser.option("--out", required=True, help="the .pth file to write")
    parser.option("--config-file", help="describes the model (default: the released preset for SYSU-MM01)")
    parser.option("--dataset", choices=BENCHMARKS, help="data set it was trained on: its identities are recorded")
    parser.option("--trial", type=int, default=1, help="RegDB's train/test split that it was trained on, 1..10")
    root_option(parser)


def import_weights(args: argparse.Namespace) -> int:
    """Translate the file and report what became of every key."""
    from tvilfm_plugin.checkpoints.import_released import import_released
    from tvilfm_plugin.config import read_config
    from tvilfm_plugin.data.datasets.check import DATASETS
    from tvilfm_plugin.engine.stages import trained_on
    from tvilfm_plugin.evaluation.provenance import Provenance
    from tvilfm_plugin.files.shipped import find_config

    cfg = read_config(find_config(args.config_file or f"{args.method.upper()}/sysu_released.yml"), args.opts)
    record = Provenance()
    if args.dataset:
        data = DATASETS[args.dataset](root=args.root, trial=args.trial, text=False, verbose=False)
        record = Provenance((trained_on(data),))
    print(f"{import_released(args.method, args.weights, args.out, cfg, record)}\nwritten: {args.out}")
    return 0


def _stranger_options(parser: Parser, steps: int) -> None:
    parser.option("--people", type=int, default=2000, help="synthetic people to learn from")
    parser.option("--seed", type=int, default=7, help="of the people and of the training")
    parser.option("--steps", type=int, default=steps, help="of the training")
    benchmark = "folder of a synthetic benchmark whose people must not be learned from; may be repeated"
    parser.option("--benchmark", action="append", default=[], help=benchmark)
    parser.option("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes that draw")


def _align_text_options(parser: Parser) -> None:
    parser.option("--arch", default="configs/text/tiny.json", help="text tower, in open_clip's model-config format")
    parser.option("--out", required=True, help="file of the weights; facts are written beside it as .json")
    real = "learn from the training people of a real data set in the place of synthetic ones (--people: at most so many)"
    parser.option("--dataset", choices=TEXT_PERSON, help=real)
    root_option(parser)
    parser.option("--folder", default="", help="the data set's folder below the root (default: its usual name)")
    _stranger_options(parser, steps=400)


def align_text(args: argparse.Namespace) -> int:
    """Learn the text tower and say how good it is."""
    from tvilfm_plugin.files.shipped import find_shipped
    from tvilfm_plugin.synthetic import text_alignment
    from tvilfm_plugin.synthetic.strangers import benchmark_looks

    start = time.perf_counter()
    arch = str(find_shipped(args.arch) or args.arch)
    spec = text_alignment.AlignmentSpec(arch, people=args.people, seed=args.seed, steps=args.steps)
    if args.dataset:
        from tvilfm_plugin.synthetic.real_albums import align_text_person

        found = align_text_person(spec, args.dataset, args.out, root=args.root, folder=args.folder)
        print(
            f"{args.out}: captions of {found.people} people of {args.dataset} never seen find the right person first in "
            f"{found.person:.1%} (chance {found.chance:.1%}); {time.perf_counter() - start:.0f} s"
        )
        return 0
    result = text_alignment.align_text(spec, args.out, avoid=benchmark_looks(args.benchmark), workers=args.workers)
    print(
        f"{args.out}: captions of {result.people} people never seen find the right person first in {result.person:.1%} "
        f"(chance {result.chance:.1%}), one in the same colours in {result.colours:.1%}; {time.perf_counter() - start:.0f} s"
    )
    return 0


def _vit_options(parser: Parser) -> None:
    config = "whose transformer (MODEL.MIP) and image size (INPUT.SIZE_TRAIN) it is made for"
    parser.option("--config-file", default="MIP/synthetic.yml", help=config)
    parser.option("--out", required=True, help="file of the weights in timm's names; facts go beside it as .json")
    parser.option("--infrared", type=int, default=3, help="infrared pictures of each; 0 = none (default: 3)")
    _stranger_options(parser, steps=2500)


def vit(args: argparse.Namespace) -> int:
    """Learn the transformer and say how good it is."""
    from tvilfm_plugin.config import read_config
    from tvilfm_plugin.files.shipped import find_config
    from tvilfm_plugin.synthetic.strangers import benchmark_looks
    from tvilfm_plugin.synthetic.vit_pretraining import PretrainingSpec, pretrain_vit

    start = time.perf_counter()
    cfg = read_config(find_config(args.config_file))
    mip = cfg.MODEL.MIP
    height, width = cfg.INPUT.SIZE_TRAIN
    spec = PretrainingSpec(
        width=mip.WIDTH, depth=mip.DEPTH, heads=mip.HEADS, mlp_ratio=mip.MLP_RATIO, patch=mip.PATCH, stride=mip.STRIDE,
        parts=mip.PARTS, shift=mip.SHIFT, groups=mip.GROUPS, image_size=(height, width), people=args.people,
        infrared=args.infrared, seed=args.seed, steps=args.steps,
    )  # fmt: skip
    result = pretrain_vit(spec, args.out, avoid=benchmark_looks(args.benchmark), workers=args.workers)
    print(
        f"{args.out}: of {result.people} people never seen, {result.shape:.1%} of what shapes them (guessing "
        f"{result.shape_guess:.1%}) and {result.colours:.1%} of their colours ({result.colours_guess:.1%}) are named right; "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 0


EXPORT = Command(
    name="export",
    help="write a trained model as ONNX graphs, compared with the model, or as one folder with a model card",
    about="ONNX graphs are what tvilfm_plugin.runtime searches with: exit status 1, and no export.json, if the export differs "
    "from the model. A folder is what search, web, eval, export and MODEL.WEIGHTS take in the place of a run.",
    options=_export_options,
    work=export,
    overrides=True,
    examples=(
        "tvilfm export logs/tvilfm/synthetic --out-dir exported --gallery PICTURES",
        "tvilfm export logs/tvilfm/synthetic --out-dir model --format folder",
        "tvilfm export logs/tvilfm/synthetic --out-dir model --format tracker --modality ir",
    ),
)
IMPORT = Command(
    name="import",
    help="turn a checkpoint of the authors (TVI-LFM, MIP, a baseline) into one of ours, and report what became of every key",
    about="A file of stage 1 (481 keys) belongs to *_released_stage1.yml, or starts stage 2; one of stage 2 (488) to "
    "*_released.yml. RegDB: name the split that the file was trained on, so that it cannot be tested on its own "
    "training persons.",
    options=_import_options,
    work=import_weights,
    overrides=True,
    examples=(
        "tvilfm import --method tvilfm --weights model_Fusion_118.pth --out sysu.pth",
        "tvilfm eval sysu_released.yml --weights sysu.pth",
    ),
)
ALIGN_TEXT = Command(
    name="pretrain align-text",
    help="align a small text tower on synthetic people, the demo's stand-in for CLIP's, or on a text-person data set",
    options=_align_text_options,
    work=align_text,
    examples=(
        "tvilfm pretrain align-text --benchmark datasets/synthetic --out datasets/synthetic/text_tower.pt",
        "tvilfm pretrain align-text --dataset cuhk-pedes --people 11003 --out tower.pt",
    ),
)
VIT = Command(
    name="pretrain vit",
    help="pre-train MIP's small transformer on synthetic people of its own",
    options=_vit_options,
    work=vit,
    examples=("tvilfm pretrain vit --out datasets/synthetic/tiny_vit.pth",),
)
COMMANDS = (EXPORT, IMPORT, ALIGN_TEXT, VIT)
