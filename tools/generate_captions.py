"""Caption the images of a data set.

`python tools/generate_captions.py --dataset sysu --modality rgb --captioner blip --weights captioner_rgb`

A stopped run goes on when it is started again. More GPUs: `torchrun --nproc_per_node N tools/generate_captions.py ...`; more
machines that share the folder: `--rank R --world-size N` on each. The process that finds everything done writes the files
that the loaders read (`caption_dict_*.json`, `id_caption_map_*.json`).
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tvilfm_plugin  # noqa: F401  (before transformers: it imports torchvision)
from tvilfm_plugin.captioning.captioner import Decoding, load_captioner
from tvilfm_plugin.captioning.engine import Shard, describe_images
from tvilfm_plugin.captioning.options import add_source_options, add_work_options, parse, print_failures, sources_of


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_source_options(parser)
    parser.add_argument("--captioner", default="blip", help="blip, git, chat or attributes")
    parser.add_argument("--weights", required=True, help="folder or Hugging Face id (org/name[@revision])")
    parser.add_argument("--prompt", default="", help="beginning of the caption, or the question to a chat model")
    parser.add_argument("--max-new-tokens", type=int, default=0, help="default: 50; 300 for captioner attributes")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    parser.add_argument("--workers", type=int, default=4, help="threads that decode")
    add_work_options(parser, what="images")
    args = parse(parser, argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images = sources_of(args)
    captioner = load_captioner(
        args.captioner,
        args.weights,
        device=args.device,
        dtype=args.dtype,
        modality=images.modality,
        prompt=args.prompt,
        decoding=Decoding(
            max_new_tokens=args.max_new_tokens or (300 if args.captioner == "attributes" else 50),
            num_beams=args.beams,
            temperature=args.temperature,
            top_p=args.top_p,
            seed=args.seed,
        ),
    )
    outcome = describe_images(
        captioner,
        images,
        args.out or images.text_folder,
        batch_size=args.batch_size,
        workers=args.workers,
        shard=Shard(args.rank, args.world_size),
        restart=args.restart,
        limit=args.limit,
    )
    print(f"{outcome.made} captions made now, {outcome.done} of {len(images.sources)} images done.")
    print_failures(outcome.failed, "no caption")
    for file in outcome.files:
        print(f"  {file}")
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except (ConnectionError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"{error}")  # the message says it all
    sys.exit(status)
