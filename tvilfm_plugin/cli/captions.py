"""`tvilfm captions`: make, rephrase, measure and compare the text of a data set (the paper's MSC)."""

import argparse
import os
from pathlib import Path
from typing import Any

from tvilfm_plugin.captioning.options import (
    add_scaling_option,
    add_source_options,
    add_work_options,
    completed,
    print_failures,
    sources_of,
)
from tvilfm_plugin.cli.command import Command, Parser
from tvilfm_plugin.cli.data import BENCHMARKS, dataset_options

INSTRUCTIONS = ("paper", "released")
FILTERS = ("strict", "released", "none")
DEFAULT_LIMITS = ("without_caption=0", "colour_in_caption=0", "colour_in_rephrase=0")
AGAIN = "The same command goes on where it was."


def _log(clock: bool = False) -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s" if clock else "%(message)s", datefmt="%H:%M:%S")


def _shard(args: argparse.Namespace) -> Any:
    from tvilfm_plugin.captioning.engine import Shard

    return Shard(args.rank, args.world_size)


def _generate_options(parser: Parser) -> None:
    add_source_options(parser)
    parser.option("--captioner", default="blip", help="blip, git, chat or attributes")
    parser.option("--weights", required=True, help="folder or Hugging Face id (org/name[@revision])")
    parser.option("--prompt", default="", help="beginning of the caption, or the question to a chat model")
    parser.option("--max-new-tokens", type=int, default=0, help="default: 50; 300 for captioner attributes")
    parser.option("--beams", type=int, default=1, help="beams of the search")
    parser.option("--temperature", type=float, default=0.0, help="0 = greedy (default: 0.0)")
    parser.option("--top-p", type=float, default=1.0, help="of sampling: share of the probability that is sampled from")
    parser.option("--seed", type=int, default=0, help="of sampling")
    parser.option("--workers", type=int, default=4, help="threads that decode")
    add_work_options(parser, what="images")


def generate(args: argparse.Namespace) -> int:
    """Caption the images of a data set."""
    import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
    from tvilfm_plugin.captioning.captioner import Decoding, load_captioner
    from tvilfm_plugin.captioning.engine import describe_images

    completed(args.parser, args)
    _log()
    images = sources_of(args)
    decoding = Decoding(
        max_new_tokens=args.max_new_tokens or (300 if args.captioner == "attributes" else 50), num_beams=args.beams,
        temperature=args.temperature, top_p=args.top_p, seed=args.seed,
    )  # fmt: skip
    captioner = load_captioner(
        args.captioner, args.weights, device=args.device, dtype=args.dtype, modality=images.modality, prompt=args.prompt,
        decoding=decoding,
    )  # fmt: skip
    outcome = describe_images(
        captioner, images, args.out or images.text_folder, batch_size=args.batch_size, workers=args.workers,
        shard=_shard(args), restart=args.restart, limit=args.limit,
    )  # fmt: skip
    print(f"{outcome.made} captions made now, {outcome.done} of {len(images.sources)} images done.")
    print_failures(outcome.failed, "no caption")
    for file in outcome.files:
        print(f"  {file}")
    return 0


def _rephrase_options(parser: Parser) -> None:
    add_source_options(parser, split="train", why="rephrases serve training only")
    parser.option("--captions", type=Path, help="caption_dict_*.json (default: the data set's)")
    parser.option("--llm", required=True, help="folder, Hugging Face id, .gguf file, or http(s) address")
    parser.option("--llm-model", default="", help="the model's name on the server (default: the first it lists)")
    parser.option("--template", default="", choices=("", "chat", "vicuna"), help="default: chat if the model has one")
    parser.option("--instruction", default="paper", choices=INSTRUCTIONS, help="how the model is asked")
    parser.option("--temperature", type=float, default=0.7, help="of sampling")
    parser.option("--top-p", type=float, default=1.0, help="of sampling: share of the probability that is sampled from")
    parser.option("--max-new-tokens", type=int, default=160, help="length of a rephrase")
    parser.option("--seed", type=int, default=0, help="of sampling")
    parser.option("--retries", type=int, default=3, help="further attempts when the guards refuse a rephrase")
    parser.option("--sentence-encoder", default="", help="folder or Hugging Face id: refuses what it finds unlike the caption")
    parser.option("--least-similarity", type=float, default=0.7, help="cosine that --sentence-encoder asks for")
    parser.option("--colour-filter", choices=FILTERS, help="of rephrases (default: strict for ir, none for rgb)")
    parser.option("--concurrency", type=int, default=16, help="requests to the server at a time")
    parser.option("--timeout", type=float, default=120.0, help="seconds for one answer of the server")
    parser.option("--server-retries", type=int, default=6, help="further attempts when the server does not answer")
    add_work_options(parser, what="captions")


def is_address(llm: str) -> bool:
    """Whether --llm names a server."""
    return llm.startswith(("http://", "https://"))


def _rephraser(args: argparse.Namespace) -> Any:
    """The language model that the options name."""
    from tvilfm_plugin.captioning.captioner import Decoding
    from tvilfm_plugin.captioning.rephrase import LocalRephraser
    from tvilfm_plugin.captioning.server import ServerRephraser

    decoding = Decoding(max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed)
    if is_address(args.llm):
        return ServerRephraser(
            args.llm, model=args.llm_model, decoding=decoding, template=args.template or "chat",
            concurrency=args.concurrency, timeout=args.timeout, retries=args.server_retries,
        )  # fmt: skip
    return LocalRephraser.load(
        args.llm, device=args.device, dtype=args.dtype, decoding=decoding, template=args.template or "auto"
    )


def rephrase(args: argparse.Namespace) -> int:
    """Rephrase the captions; 1 if some could not be asked about."""
    import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
    from tvilfm_plugin.captioning.rephrase import rephrase_captions
    from tvilfm_plugin.captioning.rows import read_descriptions
    from tvilfm_plugin.captioning.sentence_encoder import SentenceFence
    from tvilfm_plugin.modality import Modality

    completed(args.parser, args)
    _log()
    images = sources_of(args)
    file = args.captions or images.text_folder / f"caption_dict_{images.text_name}.json"
    texts = {images.relative(path): text for path, text in read_descriptions(file).items()}
    chosen = args.colour_filter or ("strict" if images.modality is Modality.IR else "none")
    outcome = rephrase_captions(
        _rephraser(args), images, texts, args.out or images.text_folder,
        colour_filter="" if chosen == "none" else chosen, instruction=args.instruction, retries=args.retries,
        batch_size=max(args.batch_size, args.concurrency) if is_address(args.llm) else args.batch_size,
        shard=_shard(args), restart=args.restart, limit=args.limit,
        fence=SentenceFence(args.sentence_encoder, args.least_similarity, args.device) if args.sentence_encoder else None,
    )  # fmt: skip
    print(f"{outcome.made} rephrases made now, {outcome.done} done, {outcome.empty} left empty by the guards.")
    for reason, count in outcome.refused.items():
        print(f"  refused {count} x: {reason}")
    print_failures(outcome.failed, "no answer")
    for written in outcome.files:
        print(f"  {written}")
    return 1 if outcome.failed else 0


def _audit_options(parser: Parser) -> None:
    dataset_options(parser, BENCHMARKS)
    texts = "only these files (a folder with Blip_RGB/ and Blip_IR/), without looking for images"
    parser.option("--text", type=Path, help=texts)
    parser.option("--train-ids", default="", help="with --text: training identities, comma-separated (default: none)")
    parser.option("--out-dir", old=("--out",), required=True, help="folder of the report")
    limits = f"may be repeated; default {' '.join(DEFAULT_LIMITS)}"
    parser.option("--fail-on", action="append", metavar="KEY=SHARE", help=limits)


def audit(args: argparse.Namespace) -> int:
    """Measure the text; 1 if a finding exceeds its limit."""
    from tvilfm_plugin.captioning.audit import write_report
    from tvilfm_plugin.captioning.dataset_audit import audit_dataset, audit_files, exceeded_limits
    from tvilfm_plugin.data.datasets.check import DATASETS

    limits = dict(parse_limit(args.parser, text) for text in args.fail_on or DEFAULT_LIMITS)
    title = DATASETS[args.dataset].name
    if args.text:
        audits, title = audit_files(args.text, args.dataset, args.train_ids), f"{title} in {args.text}"
    else:
        audits = audit_dataset(args.dataset, args.root, args.folder, args.trial)
    if not audits:
        print("No captions found.")
        return 1
    files = write_report(audits, args.out_dir, title)
    print(files[0].read_text(encoding="utf-8"))
    exceeded = exceeded_limits(audits, limits)
    print("\n".join([f"Report: {args.out_dir}", *[f"TOO MUCH: {line}" for line in exceeded]]))
    return 1 if exceeded else 0


def parse_limit(parser: argparse.ArgumentParser, text: str) -> tuple[str, float]:
    """ "key=0.01" as a pair."""
    key, _, share = text.partition("=")
    try:
        return key, float(share)
    except ValueError:
        parser.error(f"--fail-on {text!r}: expected KEY=SHARE, e.g. colour_in_caption=0.")


def _finetune_options(parser: Parser) -> None:
    parser.option("--pairs", type=Path, required=True, help=".json, .jsonl or .csv")
    parser.option("--images", type=Path, help="what relative paths are relative to (default: the file's folder)")
    parser.option("--image-key", default="image", help="key or column of the path")
    parser.option("--text-key", default="caption", help="key or column of the caption, or of a list of captions")
    parser.option("--validation", default="0.05", help="share of the pairs' folders, or a file of pairs")
    parser.option("--captioner", default="blip", help="blip or git")
    parser.option("--init", required=True, help="folder, hub id, or 'small'")
    parser.option("--out-dir", old=("--out",), required=True, help="folder of the fine-tuned captioner")
    parser.option("--epochs", type=float, default=10.0, help="passes over the pairs")
    parser.option("--steps", type=int, default=0, help="instead of --epochs")
    parser.option("--batch-size", type=int, default=32, help="per device")
    parser.option("--lr", type=float, default=1e-5, help="learning rate")
    parser.option("--weight-decay", type=float, default=0.05, help="weight decay")
    parser.option("--warmup", type=float, default=0.05, help="share of the steps")
    parser.option("--amp", default="none", choices=("none", "bf16", "fp16"), help="mixed precision")
    add_scaling_option(parser)
    parser.option("--augment", action="store_true", help="flip, shift and change the brightness of training images")
    parser.option("--save-every", type=int, default=0, help="checkpoint period in steps (default: a quarter)")
    parser.option("--workers", type=int, default=0, help="processes that load images")
    parser.option("--device", default="", choices=("", "cpu"), help="cpu: do not use a GPU that is there")
    parser.option("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.option("--from-scratch", action="store_true", help="do not go on with a stopped run")
    parser.option("--small-image", type=int, default=64, help="image size of --init small")
    parser.option("--small-patch", type=int, default=8, help="patch size of --init small")
    parser.option("--small-width", type=int, default=128, help="width of --init small")


def finetune(args: argparse.Namespace) -> int:
    """Fine-tune the captioner."""
    from tvilfm_plugin.captioning import finetune as training
    from tvilfm_plugin.captioning.pairs import read_pairs, split_pairs

    _log(clock=True)
    keys = {"image_key": args.image_key, "text_key": args.text_key, "root": args.images}
    pairs = read_pairs(args.pairs, **keys)
    if args.validation.replace(".", "", 1).isdigit():
        train, validation = split_pairs(pairs, float(args.validation), args.seed)
    else:
        train, validation = split_pairs(pairs, 0.0, args.seed)[0], read_pairs(Path(args.validation), **keys)
    captioner = training.build_captioner(
        args.captioner, args.init, train, image_size=args.small_image, patch_size=args.small_patch, width=args.small_width,
        seed=args.seed,
    )  # fmt: skip
    options = training.TrainingOptions(
        epochs=args.epochs, steps=args.steps, batch_size=args.batch_size, learning_rate=args.lr,
        weight_decay=args.weight_decay, warmup=args.warmup, amp=args.amp, augment=args.augment, save_every=args.save_every,
        workers=args.workers, seed=args.seed, device=args.device, ir_scaling=tuple(args.ir_scaling),
    )  # fmt: skip
    report = training.finetune(captioner, train, validation, args.out_dir, options, resume=not args.from_scratch)
    if os.environ.get("RANK", "0") != "0":
        return 0
    losses = ", ".join(f"{loss:.3f}" for loss in report["validation_losses"]) or "none"
    print(f"{args.out_dir}: {report['steps']} steps on {len(train)} pairs in {report['seconds']} s; validation loss {losses}")
    return 0


def _pairs_options(parser: Parser) -> None:
    dataset_options(parser, BENCHMARKS)
    captions = "visible captions: JSON, JSONL, or a folder of rows (default: those of the data set)"
    parser.option("--captions", type=Path, help=captions)
    parser.option("--filter", default="strict", choices=FILTERS, help="of colours")
    parser.option("--per-image", type=int, default=4, help="visible captions per infrared image")
    parser.option("--seed", type=int, default=0, help="of the choice of captions")
    parser.option("--out", required=True, help="file of the pairs")


def pairs(args: argparse.Namespace) -> int:
    """Write the pairs of infrared images and colourless visible captions."""
    from tvilfm_plugin.captioning.pairs import make_ir_pairs
    from tvilfm_plugin.captioning.rows import read_descriptions, write_json
    from tvilfm_plugin.captioning.sources import find_sources
    from tvilfm_plugin.modality import Modality

    rgb, ir = (
        find_sources(args.dataset, args.root, modality, folder=args.folder, split="train", trial=args.trial)
        for modality in (Modality.RGB, Modality.IR)
    )
    file = args.captions or rgb.text_folder / f"caption_dict_{rgb.text_name}.json"
    captions = {rgb.relative(path): text for path, text in read_descriptions(file).items()}
    made = make_ir_pairs(rgb, ir, captions, colour_filter=args.filter, per_image=args.per_image, seed=args.seed)
    write_json(args.out, made)
    print(f"{args.out}: {len(made)} infrared images with {sum(len(pair['caption']) for pair in made)} captions")
    print(f"Next: tvilfm captions finetune --pairs {args.out} --images {ir.folder} --init CAPTIONER_RGB --out-dir ...")
    return 0


def _demo_options(parser: Parser) -> None:
    data, out = Path("datasets/synthetic"), Path("datasets/synthetic_captioned")
    parser.option("--data", old=("--dataset",), dest="dataset", type=Path, default=data, help="folder of the benchmark")
    parser.option("--out-dir", old=("--out",), default=out, help="folder of the same data set with captions")
    parser.option("--others", type=int, default=3000, help="people for pre-training only; 0: none (default: 3000)")
    parser.option("--pretraining-steps", type=int, default=12000, help="steps on the captions of the others")
    parser.option("--rgb-steps", type=int, default=0, help="default: 400; 4000 with --others 0")
    parser.option("--ir-steps", type=int, default=1000, help="steps of the infrared captioner")
    parser.option("--control", action="store_true", help="also train the infrared captioner without the colour filter")
    parser.option("--seed", type=int, default=0, help="of everything")


def demo(args: argparse.Namespace) -> int:
    """The whole chain; 1 if the captions are worse than those that it was given, or infrared ones name colours."""
    from tvilfm_plugin.captioning.audit import write_report
    from tvilfm_plugin.captioning.dataset_audit import audit_dataset
    from tvilfm_plugin.captioning.demo import DemoOptions, run_demo

    _log(clock=True)
    options = DemoOptions(args.others, args.pretraining_steps, args.rgb_steps, args.ir_steps, args.control, args.seed)
    out = args.out_dir
    report = run_demo(args.dataset.absolute(), out.absolute(), options)
    work = out / "captioners"
    write_report(audit_dataset("sysu", str(out.absolute().parent), out.name), work / "audit", str(out))
    print((work / "report.md").read_text(encoding="utf-8"))
    # Colours as the image shows them, and those that the person really wears.
    right = {name: score["accuracy"] for name, score in report["colours"].items()}
    enough = all(right[name] >= right[f"{name}, given"] for name in ("all", "person")) and not report["infrared"]["with_colour"]
    missed = "" if enough else "; MISSED: colours right as often as in the given captions, none in infrared ones"
    print(f"Report: {work}/report.md, {work}/audit/audit.md{missed}")
    return 0 if enough else 1


GENERATE = Command(
    name="captions generate",
    help="caption the images of a data set",
    about="A stopped run goes on when it is started again. More GPUs: torchrun --no-python "
    "--nproc_per_node N tvilfm captions generate ...; more machines that share the folder: --rank R --world-size N on each. "
    "The process that finds everything done writes the files that the loaders read (caption_dict_*.json, "
    "id_caption_map_*.json).",
    options=_generate_options,
    work=generate,
    goes_on=AGAIN,
    examples=("tvilfm captions generate --dataset sysu --modality rgb --captioner blip --weights captioner_rgb",),
)
REPHRASE = Command(
    name="captions rephrase",
    help="rephrase captions with a language model",
    about="--llm is a folder, a Hugging Face id or a GGUF file of a causal language model, or the address of a server that "
    "speaks OpenAI's protocol (its key, if it wants one, is read from the environment variable OPENAI_API_KEY). A stopped "
    "run goes on when it is started again. Exit status 1 if some captions could not be asked about (start it again).",
    options=_rephrase_options,
    work=rephrase,
    goes_on=AGAIN,
    examples=("tvilfm captions rephrase --dataset sysu --modality ir --llm http://localhost:8000/v1",),
)
AUDIT = Command(
    name="captions audit",
    help="measure the text of a data set",
    about="Writes audit.md, audit.json and lengths.png. Exit status 1 if a finding exceeds its limit (--fail-on); by "
    "default no image may lack a caption and no infrared text may name a colour.",
    options=_audit_options,
    work=audit,
    examples=("tvilfm captions audit --dataset sysu --out-dir report",),
)
FINETUNE = Command(
    name="captions finetune",
    help="fine-tune a captioner on image-text pairs",
    about="--init is a folder, a Hugging Face id, or 'small': a BLIP that is built from its configuration, without a "
    "download. Several GPUs: torchrun --no-python --nproc_per_node N tvilfm captions finetune ...",
    options=_finetune_options,
    work=finetune,
    goes_on=AGAIN,
    examples=("tvilfm captions finetune --pairs pairs.json --init small --out-dir captioner",),
)
PAIRS = Command(
    name="captions pairs",
    help="pairs for the infrared captioner: infrared images with visible captions of the person, without their colours",
    options=_pairs_options,
    work=pairs,
    examples=("tvilfm captions pairs --dataset sysu --captions rgb.jsonl --out ir_pairs.json",),
)
DEMO = Command(
    name="captions demo",
    help="the captioning chain on the synthetic benchmark, from pre-training to the comparison with what was drawn",
    about="Pre-trains a small BLIP on other synthetic people (the stand-in for BLIP's own weights), fine-tunes it on the "
    "training people, captions everybody's visible images, makes infrared pairs without colours, fine-tunes the "
    "infrared captioner, and captions everybody's infrared images. The result is a data set to train on like any "
    "other.",
    options=_demo_options,
    work=demo,
    goes_on=AGAIN,
    examples=("tvilfm captions demo --data datasets/synthetic --out-dir datasets/synthetic_captioned",),
)
COMMANDS = (GENERATE, REPHRASE, AUDIT, FINETUNE, PAIRS, DEMO)
