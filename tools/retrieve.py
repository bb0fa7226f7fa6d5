"""Search a gallery of visible images with an infrared image, words, or both; print the hits and draw them.

    python tools/retrieve.py --config-file RUN/config.yaml --weights RUN/model_final.pth --gallery DIR \\
        --image query.png --text "a man in a red jacket and black trousers" --infrared-text "a man in a jacket and trousers"

With --index the embedded gallery is kept in a file: later searches need no --gallery, and a killed run goes on where it was.
"""

import argparse
import sys
from pathlib import Path

import tvilfm_plugin  # noqa: F401  (fixes the host; before anything else of fast-reid)

# isort: split
import numpy as np

from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.hits import SearchResult
from tvilfm_plugin.retrieval.kinds import KINDS
from tvilfm_plugin.retrieval.records import Filter
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.visualization.rank_sheet import Hit, QueryRow, draw_rank_sheet


def hits_table(result: SearchResult) -> str:
    """A Markdown table: rank, similarity, the share of each member, what is known of the image."""
    members = list(result.hits[0].shares) if result.hits else []
    cells = [["rank", "similarity", *(m.value for m in members), "person", "camera", "time", "image"]]
    for rank, hit in enumerate(result.hits, start=1):
        known = ("" if value is None else f"{value:g}" for value in (hit.pid, hit.camid, hit.time))
        shares = (f"{hit.shares[m]:.4f}" for m in members)
        cells.append([str(rank), f"{hit.similarity:.4f}", *shares, *known, hit.path])
    return "\n".join(aligned(cells, names=0))


def draw(result: SearchResult, image: str, texts: tuple[str, str], pid: int | None, out: Path) -> Path:
    """The hits as a rank sheet; without the query's identity nothing is marked right or wrong."""
    blank = np.full((96, 48), 235, np.uint8)
    hits = [Hit(hit.path, None if pid is None or hit.pid is None else hit.pid == pid, hit.similarity) for hit in result.hits]
    row = QueryRow(image or blank, texts, hits, "text alone" if not image else "")
    return draw_rank_sheet([row], out, result.note)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="of the run: OUTPUT_DIR/config.yaml")
    parser.add_argument("--weights", required=True, help="e.g. OUTPUT_DIR/model_final.pth")
    parser.add_argument("--gallery", help="folder of visible images, or a CSV file with columns path[, pid, camid, time]")
    parser.add_argument("--index", type=Path, help="gallery index file: written with --gallery, read without")
    parser.add_argument("--kind", choices=KINDS, default="flat", help="type of index (default flat, which is exact)")
    parser.add_argument("--image", help="infrared query image")
    parser.add_argument("--text", help="what a witness says, with colours")
    parser.add_argument("--infrared-text", help="what the infrared image shows, without colours: the filter of Eq. 7")
    parser.add_argument("--members", nargs="+", choices=["ir", "text", "fusion"], help="who votes (default: everybody who can)")
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument("--cameras", type=int, nargs="+", help="find images of these cameras only")
    parser.add_argument("--person", type=int, help="identity of the query, to mark hits right and wrong")
    parser.add_argument("--out", type=Path, help="draw the result to this PNG")
    parser.add_argument("--device", default="", help="cpu or cuda (default: as the config says)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    args = parser.parse_args(argv)
    if not args.gallery and not args.index:
        parser.error("give --gallery DIR, --index FILE, or both")

    retriever = Retriever.from_checkpoint(args.config_file, args.weights, device=args.device, opts=args.opts)
    if args.gallery:
        retriever.embed_gallery(args.gallery, index_file=args.index, kind=args.kind)
        for path, reason in retriever.unreadable:
            print(f"Skipped {path}: {reason}", file=sys.stderr)
    else:
        retriever.load_gallery(args.index)
    if not args.image and not args.text:
        assert retriever.index is not None
        print(f"{len(retriever.index)} images are indexed; search them with --image, --text or both.")
        return 0
    members = None if args.members is None else [Modality(m) for m in args.members]
    allowed = Filter(cameras=args.cameras)
    result = retriever.search(args.image, args.text, args.infrared_text, args.top, members, allowed=allowed)
    print(hits_table(result))
    if result.note:
        print(f"\nNote: {result.note}.")
    if args.out:
        picture = draw(result, args.image or "", (args.text or "", args.infrared_text or ""), args.person, args.out)
        print(f"\nPicture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
