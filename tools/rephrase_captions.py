"""Rephrase captions with a language model: `python tools/rephrase_captions.py --dataset sysu --modality ir --llm PATH_OR_URL`.

`--llm` is a folder or a Hugging Face id of a causal language model, or the address of a server that speaks OpenAI's protocol
(`http://localhost:8000/v1`; its key, if it wants one, is read from the environment variable OPENAI_API_KEY). A stopped run
goes on when it is started again. Exit status 1 if some captions could not be asked about (start it again).
"""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
from tvilfm_plugin.captioning.captioner import Decoding
from tvilfm_plugin.captioning.engine import Shard
from tvilfm_plugin.captioning.rephrase import INSTRUCTIONS, LocalRephraser, Rephraser, rephrase_captions
from tvilfm_plugin.captioning.rows import read_descriptions
from tvilfm_plugin.captioning.server import ServerRephraser
from tvilfm_plugin.captioning.sources import SPLITS, find_sources
from tvilfm_plugin.modality import Modality


def main(argv: list[str] | None = None) -> int:
    here = Shard.from_environment()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=("sysu", "regdb", "llcm"))
    parser.add_argument("--root", default=os.environ.get("FASTREID_DATASETS", "datasets"))
    parser.add_argument("--folder", default="", help="the data set's folder below the root")
    parser.add_argument("--split", default="train", choices=SPLITS, help="rephrases serve training only")
    parser.add_argument("--trial", type=int, default=1, help="RegDB's split")
    parser.add_argument("--modality", required=True, choices=("rgb", "ir"))
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
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--concurrency", type=int, default=16, help="requests to the server at a time")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for one answer of the server")
    parser.add_argument("--server-retries", type=int, default=6, help="further attempts when the server does not answer")
    parser.add_argument("--device", default="", help="default: this process's GPU, else the CPU")
    parser.add_argument("--dtype", default="", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU)")
    parser.add_argument("--out", type=Path, help="folder of the caption files (default: the data set's)")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many captions")
    parser.add_argument("--restart", action="store_true", help="put earlier rows aside instead of going on")
    parser.add_argument("--rank", type=int, default=here.rank)
    parser.add_argument("--world-size", type=int, default=here.world_size)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.restart and args.world_size > 1:
        parser.error("--restart moves rows that other processes may be writing: use it with one process.")
    modality = Modality(args.modality)
    images = find_sources(
        args.dataset, args.root, modality, folder=args.folder, split=args.split, trial=args.trial
    )
    file = args.captions or images.text_folder / f"caption_dict_{images.text_name}.json"
    texts = {images.relative(path): text for path, text in read_descriptions(file).items()}
    chosen = args.colour_filter or ("strict" if modality is Modality.IR else "none")
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
    for key, reason in list(outcome.failed.items())[:20]:
        print(f"  no answer: {key} ({reason})")
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
    import torch

    device = args.device or (f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu")
    dtype = args.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    return LocalRephraser.load(
        args.llm, device=device, dtype=dtype, decoding=decoding, template=args.template or "auto"
    )


if __name__ == "__main__":
    try:
        status = main()
    except (ConnectionError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"{error}")  # the message says it all
    sys.exit(status)
