"""Open the web page: search a gallery with an infrared picture, a witness's words, or both.

Without options it takes what `make demo` trained. The gallery is then that of the test set's first draw, and the page offers
some test queries; with --gallery it is a folder of visible pictures. Only this machine can open the page, unless --host says
otherwise: there is no password and no encryption, so put a proxy with both in front of it before others can reach it.
"""

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tvilfm_plugin.config import get_cfg
from tvilfm_plugin.data.loaders import build_dataset
from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.retriever import Retriever

CONFIG, WEIGHTS = "projects/TVILFM/configs/synthetic.yml", "logs/tvilfm/synthetic/model_final.pth"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=Path(CONFIG), help=f"of the model (default {CONFIG})")
    parser.add_argument("--weights", type=Path, default=Path(WEIGHTS), help=f"a checkpoint (default {WEIGHTS})")
    parser.add_argument("--gallery", type=Path, help="folder of visible pictures; default: the test set of the config")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=7860, help="0 takes any free one (default 7860)")
    parser.add_argument("--name", action="append", default=[], help="host name under which a browser may ask; may be repeated")
    parser.add_argument("--examples", type=int, default=12, help="test queries that the page offers (default 12)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides of the config")
    args = parser.parse_args(argv)
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        return _stop(f"The page needs {' and '.join(missing)}: pip install 'tvilfm-plugin[web]', or run `make setup`.")
    if not args.weights.is_file():
        return _stop(f"No weights {args.weights}. `make demo` trains them (minutes on two cores); or name others by --weights.")

    from tvilfm_plugin.retrieval.web import LOOPBACK, Example, listen, make_app, server
    from tvilfm_plugin.retrieval.web_examples import examples, first_gallery

    try:
        # First of all, so that a taken port is known before a large gallery is embedded.
        listening = listen(args.host, args.port)
        offered: list[Example] = []
        if args.gallery is None:
            cfg = get_cfg()
            cfg.merge_from_file(str(args.config_file))
            cfg.merge_from_list(args.opts)
            dataset = build_dataset(cfg, cfg.DATASETS.TESTS[0], text=True)
            items = first_gallery(dataset)
            gallery: object = [Record(item.path, item.pid, item.camid) for item in items]
            offered = examples(dataset, args.examples, cfg.TEST.TEXT_SOURCES[0])
            people = len({item.pid for item in items})
            name = Path(dataset.dataset_dir).name
            title = f"The gallery: {len(items)} visible pictures of {people} people ({name}, first draw)."
        else:
            gallery, title = args.gallery, f"The gallery: the pictures in {args.gallery.resolve().name}."
        retriever = Retriever.from_checkpoint(args.config_file, args.weights, opts=args.opts)
        retriever.embed_gallery(gallery)
    except (OSError, ValueError) as error:
        return _stop(str(error))
    address, port = listening.getsockname()[:2]
    if address not in LOOPBACK:
        print(f"Listening on {address}: everyone who reaches it sees the gallery. There is no password and no encryption.")
    print(f"The page: http://{f'[{address}]' if ':' in address else address}:{port}   (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server(make_app(retriever, offered, title, {*LOOPBACK, address, *args.name})).run(sockets=[listening])
    return 0


def _stop(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
