"""Rephrase captions with a language model: `python tools/rephrase_captions.py --dataset sysu --modality ir --llm PATH_OR_URL`.

`--llm` is a folder or a Hugging Face id of a causal language model, or the address of a server that speaks OpenAI's protocol
(`http://localhost:8000/v1`; its key, if it wants one, is read from the environment variable OPENAI_API_KEY). A stopped run
goes on when it is started again. Exit status 1 if some captions could not be asked about (start it again).
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
from tvilfm_plugin.captioning.captioner import Decoding
from tvilfm_plugin.captioning.engine import Shard
from tvilfm_plugin.captioning.options import add_source_options, add_work_options, parse, print_failures, sources_of
from tvilfm_plugin.captioning.rephrase import INSTRUCTIONS, LocalRephraser, Rephraser, rephrase_captions
from tvilfm_plugin.captioning.rows import read_descriptions
from tvilfm_plugin.captioning.server import ServerRephraser
from tvilfm_plugin.modality import Modality


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source_options(parser, split="train", why="rephrases serve training only")
    parser.add_argument("--captions", type=Path, help="caption_dict_*.json (default: the data set's)")
    parser.add_argument("--llm", required=True, help="folder, Hugging Face id, or http(s) address")
    parser.add_argument("--llm-model", default="", help="the model's name on the server (default: the first it lists)")
    parser.add_argument("--template", default="", choices=("", "chat", "vicuna"), help="default: chat if the model has one")
    parser.add_argument("--instruction", default="paper", choices=INSTRUCTIONS)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--retries", type=int, default=3, help="further attempts when the guards refuse a rephrase")
    parser.add_argument(
        "--colour-filter", choices=("strict", "released", "none"), help="of rephrases (default: strict for ir, none for rgb)"
    )
    parser.add_argument("--concurrency", type=int, default=16, help="requests to the server at a time")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one answer of the server")
    parser.add_argument("--server-retries", type=int, default=6, help="further attempts when the server does not answer")
    add_work_options(parser, what="captions")
    args = parse(parser, argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images = sources_of(args)
    file = args.captions or images.text_folder / f"caption_dict_{images.text_name}.json"
    texts = {images.relative(path): text for path, text in read_descriptions(file).items()}
    chosen = args.colour_filter or ("strict" if images.modality is Modality.IR else "none")
    outcome = rephrase_captions(
        build_rephraser(args),
        images,
        texts,
        args.out or images.text_folder,
        colour_filter="" if chosen == "none" else chosen,
        instruction=args.instruction,
        retries=args.retries,
        batch_size=max(args.batch_size, args.concurrency) if is_address(args.llm) else args.batch_size,
        shard=Shard(args.rank, args.world_size),
        restart=args.restart,
        limit=args.limit,
    )
    print(f"{outcome.made} rephrases made now, {outcome.done} done, {outcome.empty} left empty by the guards.")
    for reason, count in outcome.refused.items():
        print(f"  refused {count} x: {reason}")
    print_failures(outcome.failed, "no answer")
    for written in outcome.files:
        print(f"  {written}")
    return 1 if outcome.failed else 0


def is_address(llm: str) -> bool:
    """Whether --llm names a server."""
    return llm.startswith(("http://", "https://"))


def build_rephraser(args: argparse.Namespace) -> Rephraser:
    """The language model that the options name."""
    decoding = Decoding(
        max_new_tokens=args.max_new_tokens, temperature=args.temperature, top_p=args.top_p, seed=args.seed
    )
    if is_address(args.llm):
        return ServerRephraser(
            args.llm,
            model=args.llm_model,
            decoding=decoding,
            template=args.template or "chat",
            concurrency=args.concurrency,
            timeout=args.timeout,
            retries=args.server_retries,
        )
    return LocalRephraser.load(
        args.llm, device=args.device, dtype=args.dtype, decoding=decoding, template=args.template or "auto"
    )


if __name__ == "__main__":
    try:
        status = main()
    except (ConnectionError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"{error}")  # the message says it all
    sys.exit(status)
