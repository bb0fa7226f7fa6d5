"""The server of `benchmarks.serving`: prints its port and serves until it is ended."""

import argparse

import torch

from tvilfm_plugin.config import read_config
from tvilfm_plugin.engine import TriTrainer
from tvilfm_plugin.files.shipped import find_config
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.serving import make_endpoint
from tvilfm_plugin.retrieval.web import listen, server


def demo_network() -> Retriever:
    """The demo's network, not trained: what it costs does not depend on that."""
    cfg = read_config(find_config("synthetic.yml"))
    cfg.MODEL.DEVICE, cfg.MODEL.TEXT.WEIGHTS, cfg.MODEL.BACKBONE.PRETRAIN = "cpu", "checkpoint", False
    torch.manual_seed(0)
    height, width = cfg.INPUT.SIZE_TEST
    return Retriever(TriTrainer.build_model(cfg), image_size=(height, width))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="")
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--batch", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    retriever = Retriever.from_pretrained(args.run, device="cpu") if args.run else demo_network()
    retriever.embed_gallery(args.gallery)
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    server(make_endpoint(retriever, batch=args.batch)).run(sockets=[listening])


if __name__ == "__main__":
    main()
