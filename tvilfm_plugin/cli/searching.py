"""`tvilfm search` and `tvilfm web`: find somebody by an infrared picture, a witness's words, or both."""

import argparse
import contextlib
import gc
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvilfm_plugin.cli.command import Command, Parser
from tvilfm_plugin.cli.run_folder import DEMO_RUN, config_and_weights, folder_of_model, model_options

if TYPE_CHECKING:
    from tvilfm_plugin.retrieval.ask import Dialogue
    from tvilfm_plugin.retrieval.hits import Hit

KINDS = ("flat", "fp16", "int8", "refined", "ivf", "hnsw", "pq")
MEMBERS = ("ir", "text", "fusion")


def _search_options(parser: Parser) -> None:
    model_options(parser)
    gallery = "folder of visible images, or a CSV file with columns path[, pid, camid, time]"
    example = "search the pictures that come with the plugin: query N, or the first that needs picture and words"
    if not parser.legacy:
        parser.option("--example", nargs="?", type=int, const=0, metavar="N", help=example)
    parser.option("--gallery", help=gallery)
    parser.option("--index", type=Path, help="gallery index file: written with --gallery, read without")
    parser.option("--kind", choices=KINDS, default="flat", help="type of index; flat is exact")
    parser.option("--image", nargs="+", help="infrared query image; several are taken for images of one person")
    parser.option("--text", help="what a witness says, with colours")
    parser.option("--infrared-text", help="what the infrared image shows, without colours: the filter of Eq. 7")
    parser.option("--members", nargs="+", choices=MEMBERS, help="who votes (default: everybody who can)")
    parser.option("--top", type=int, default=10, help="hits")
    parser.option("--cameras", type=int, nargs="+", help="find images of these cameras only")
    parser.option("--threshold", type=float, help="similarity that a hit needs; without one that has it, the answer is nobody")
    about = "then ask the witness up to N questions, 5 unless told; answers may come from a pipe, one a line"
    parser.option("--ask", type=int, nargs="?", const=5, default=0, metavar="N", help=about)
    parser.option("--person", type=int, help="identity of the query, to mark hits right and wrong")
    parser.option("--out", help="draw the result to this PNG")
    parser.option("--device", default="", help="cpu or cuda (default: as the config says)")


def search(args: argparse.Namespace) -> int:
    """Embed or load the gallery, search it, print and draw the hits."""
    if getattr(args, "example", None) is not None:
        return _search_example(args)
    if not args.gallery and not args.index:
        args.parser.error("give --gallery DIR, --index FILE, or both; or --example")
    from tvilfm_plugin.modality import Modality
    from tvilfm_plugin.retrieval.hits import SearchResult
    from tvilfm_plugin.retrieval.hits_table import hits_table
    from tvilfm_plugin.retrieval.records import Filter
    from tvilfm_plugin.retrieval.retriever import Retriever
    from tvilfm_plugin.visualization.hits_sheet import draw_hits

    config, weights = config_and_weights(args)
    retriever = Retriever.from_checkpoint(config, weights, device=args.device, opts=args.opts)
    for image in args.image or ():  # a wrong name must not cost the embedding of a gallery
        retriever.pixels(image, Modality.IR)
    if args.gallery:
        retriever.embed_gallery(args.gallery, index_file=args.index, kind=args.kind)
    else:
        retriever.load_gallery(args.index)
    if args.image is None and args.text is None and args.infrared_text is None:
        assert retriever.index is not None
        print(f"{len(retriever.index)} images are indexed; search them with --image, --text or both.")
        return 0
    members = None if args.members is None else [Modality(m) for m in args.members]
    allowed = Filter(cameras=args.cameras)
    queries, note = retriever.embed_query(args.image, args.text, args.infrared_text, members)
    result = retriever.find(queries, note, args.top, allowed=allowed, threshold=args.threshold)
    print(hits_table(result))
    if result.note:
        print(f"\nNote: {result.note}.")
    if args.ask:
        from tvilfm_plugin.retrieval.gallery_list import gallery_captions

        captions = gallery_captions(args.gallery)
        dialogue = retriever.ask_about(queries, allowed=allowed, captions=captions)
        result = SearchResult(_interview(dialogue, args.ask, args.top, args.threshold), result.note)
    if args.out:
        texts = (args.text or "", args.infrared_text or "")
        picture = draw_hits(
            result.hits, args.out, image=args.image[0] if args.image else "", texts=texts, pid=args.person, note=result.note
        )
        print(f"\nPicture: {picture}")
    return 0


def _interview(dialogue: "Dialogue", questions: int, top: int, threshold: float | None = None) -> "list[Hit]":
    """Ask on the terminal, or read the answers from a pipe, one a line; the hits after the last answer."""
    from tvilfm_plugin.retrieval.hits import SearchResult
    from tvilfm_plugin.retrieval.hits_table import hits_table

    def found() -> "list[Hit]":
        return [hit for hit in dialogue.hits if threshold is None or hit.similarity >= threshold][:top]

    while len(dialogue.said) < questions and (question := dialogue.question()) is not None:
        print(f"\n{question.text} ({', '.join(question.choices[:8])}, don't know)")
        while question.slot not in dialogue.said:
            print("> ", end="", flush=True)
            if not (line := sys.stdin.readline()):
                return found()
            try:
                dialogue.answer(question.slot, line)
            except ValueError as error:
                print(error)
        print(f"\n{hits_table(SearchResult(found(), ''))}")
    return found()


def _search_example(args: argparse.Namespace) -> int:
    """One query of the example by its infrared picture, by its words, and by both."""
    from tvilfm_plugin.retrieval.example import KINDS, example_set, ranks, telling, three_ways
    from tvilfm_plugin.retrieval.hits_table import hits_table
    from tvilfm_plugin.retrieval.retriever import Retriever
    from tvilfm_plugin.visualization.hits_sheet import Way, draw_ways

    example = example_set()
    if not 0 <= args.example <= len(example.queries):
        raise ValueError(f"The example has queries 1 to {len(example.queries)}, not {args.example}.")
    if not (args.run or args.config_file or args.weights):
        args.run = Path("example")
    retriever = Retriever.from_checkpoint(*config_and_weights(args), device=args.device, opts=args.opts)
    retriever.embed_gallery(example.gallery)
    found = ranks(retriever, example)
    number = args.example or telling(found) + 1
    query = example.queries[number - 1]
    query = query._replace(text=args.text or query.text, infrared_text=args.infrared_text or query.infrared_text)
    right = ", ".join(f"{kind} {sum(one[kind] == 1 for one in found)}" for kind in KINDS)
    print(f"{example.title}.\nFound at rank 1, of {len(found)} queries: {right}.")
    print(f"\nQuery {number}: person {query.person} in {Path(query.path).name}. A witness says: {query.text}")
    ways = []
    for kind, result in three_ways(retriever, query, min(args.top, 5)).items():
        named = [hit._replace(path=Path(hit.path).name) for hit in result.hits]
        print(f"\n{kind}:\n{hits_table(result._replace(hits=named))}")
        texts = {KINDS[0]: ("", ""), KINDS[1]: (query.text, "")}.get(kind, (query.text, query.infrared_text))
        ways.append(Way(kind, "" if kind == KINDS[1] else query.path, texts, result.hits))
    if args.ask:
        print("\nQuestions to the witness, after the infrared picture alone:")
        _interview(retriever.ask(query.path), args.ask, min(args.top, 5))
    if args.out:
        title = f"Synthetic people: one infrared query, a witness's words, and both (query {number} of {len(found)})"
        print(f"\nPicture: {draw_ways(ways, args.out, pid=query.person, title=title)}")
    return 0


def _web_options(parser: Parser) -> None:
    _server_options(parser, 7860)
    parser.option("--examples", type=int, default=12, help="test queries that the page offers")


def _server_options(parser: Parser, port: int) -> None:
    model_options(parser, run=DEMO_RUN)
    parser.option("--gallery", type=Path, help="folder of visible pictures; default: the test set of the config")
    if not parser.legacy:
        parser.option("--example", action="store_true", help="the model, pictures and queries that come with the plugin")
    parser.option("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1 is this machine only")
    parser.option("--port", type=int, default=port, help=f"0 takes any free one (default: {port})")
    parser.option("--name", action="append", default=[], help="host name under which it may be asked for; may be repeated")


def web(args: argparse.Namespace) -> int:
    """Embed the gallery and serve the page until Ctrl-C."""

    def page(retriever: Any, shown: Any, hosts: set[str]) -> Any:
        from tvilfm_plugin.retrieval.web import make_app

        return make_app(retriever, shown.offered, shown.title, hosts)

    return _serve(args, args.examples, "The page", page)


def _serve(args: argparse.Namespace, examples: int, what: str, make: Callable[[Any, Any, set[str]], Any]) -> int:
    """Serve what `make` makes of the retriever, what is shown, and the host names."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        install = f"pip install {' '.join(missing)}, or run `make setup`"
        raise ModuleNotFoundError(f"{what} needs {' and '.join(missing)}, which is not installed: {install}.")
    example = getattr(args, "example", False)
    if example and args.run == Path(DEMO_RUN):
        args.run = Path("example")
    args.run = args.run and folder_of_model(args.run)
    if args.weights and not args.weights.is_file() or not args.weights and not args.run.is_dir():
        wanted = args.weights or args.run
        raise FileNotFoundError(
            f"No weights {wanted}. `make demo` trains them (minutes on two cores); or name others by --weights, or see "
            "the example that comes with the plugin by --example."
        )
    from tvilfm_plugin.retrieval.retriever import Retriever
    from tvilfm_plugin.retrieval.web import LOOPBACK, listen, server
    from tvilfm_plugin.retrieval.web_gallery import shown_example, shown_gallery

    config, weights = config_and_weights(args)
    # First of all, so that a taken port is known before a large gallery is embedded.
    listening = listen(args.host, args.port)
    shown = shown_example() if example else shown_gallery(config, args.gallery, examples, args.opts)
    retriever = Retriever.from_checkpoint(config, weights, opts=args.opts)
    retriever.embed_gallery(shown.gallery)
    address, port = listening.getsockname()[:2]
    if address not in LOOPBACK:
        print(f"Listening on {address}: everyone who reaches it sees the gallery. There is no password and no encryption.")
    print(f"{what}: http://{f'[{address}]' if ':' in address else address}:{port}   (Ctrl-C ends it)", flush=True)
    gc.freeze()  # what is loaded stays: the collector need not look through it during searches, nor when the server ends
    with contextlib.suppress(KeyboardInterrupt):
        server(make(retriever, shown, {*LOOPBACK, address, *args.name})).run(sockets=[listening])
    return 0


def _serve_options(parser: Parser) -> None:
    _server_options(parser, 8000)
    parser.option("--batch", type=int, default=16, help="pictures and texts of one pass of the network")
    parser.option("--places", type=int, default=64, help="requests at once; one more is answered 503")


def serve(args: argparse.Namespace) -> int:
    """Embed the gallery and answer requests until Ctrl-C."""

    def endpoint(retriever: Any, shown: Any, hosts: set[str]) -> Any:
        from tvilfm_plugin.retrieval.serving import make_endpoint

        return make_endpoint(retriever, shown.title, hosts, batch=args.batch, places=args.places)

    if args.batch < 1 or args.places < 1:
        args.parser.error("--batch and --places are at least 1")
    return _serve(args, 0, "The endpoint", endpoint)


SEARCH = Command(
    name="search",
    help="search a gallery of visible images with an infrared image, words, or both; print the hits and draw them",
    about="With --index the embedded gallery is kept in a file: later searches need no --gallery, and a killed run goes on "
    "where it was.",
    options=_search_options,
    work=search,
    overrides=True,
    goes_on="With --index, the same command goes on where it was.",
    examples=(
        "tvilfm search --example --out found.png",
        'tvilfm search logs/tvilfm/synthetic --gallery PICTURES --image query.png --text "a man in a red jacket"',
        "tvilfm search logs/tvilfm/synthetic --gallery PICTURES --index gallery.index",
    ),
)
WEB = Command(
    name="web",
    help="open the web page: search a gallery with an infrared picture, a witness's words, or both",
    about="Without options it takes what `make demo` trained. The gallery is then that of the test set's first draw, and "
    "the page offers some test queries; with --gallery it is a folder of visible pictures. Only this machine can open "
    "the page, unless --host says otherwise: there is no password and no encryption, so put a proxy with both in "
    "front of it before others can reach it.",
    options=_web_options,
    work=web,
    overrides=True,
    examples=("tvilfm web --example", "tvilfm web", "tvilfm web logs/tvilfm/sysu --gallery PICTURES --port 8000"),
)
SERVE = Command(
    name="serve",
    help="answer searches and embeddings as JSON: POST /search, POST /embed, GET /health, /info, /openapi.json",
    about="The gallery, the limits and the guards are those of `tvilfm web`; requests that wait share passes of the network. "
    "Only this machine is answered, unless --host says otherwise: there is no password and no encryption.",
    options=_serve_options,
    work=serve,
    overrides=True,
    examples=("tvilfm serve --example", "tvilfm serve logs/tvilfm/synthetic --gallery PICTURES --batch 32"),
)
COMMANDS = (SEARCH, WEB, SERVE)
