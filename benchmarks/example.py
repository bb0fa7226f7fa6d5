"""`python -m benchmarks.example`: what the shipped model is exported with (`make example` has all the commands).

`words` writes the words of a synthetic benchmark's captions, one a line; `pictures` the pictures and queries of the example;
`measure` adds the ranks at which the model beside them finds the right people.
"""

import argparse
import json
import re
import shutil
from pathlib import Path

from tvilfm_plugin.files.writing import write_text

PEOPLE, VIEWS, QUERIES = 30, 2, 12
MODEL = Path("tvilfm_plugin/pretrained/example")


def words(dataset: Path) -> Path:
    """All words of the captions, rephrases and phrases, and the signs between them."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((dataset / "Text").rglob("caption*.json"))]
    said = [text for file in texts for text in strings(json.loads(file))]
    said += (dataset / "Text" / "human_phrases.txt").read_text(encoding="utf-8").splitlines()
    known = sorted({word for text in said for word in re.findall(r"[a-z]+|[^\w\s]", text.lower())})
    write_text(dataset / "words.txt", "\n".join(known) + "\n")
    return dataset / "words.txt"


def strings(content: object) -> list[str]:
    """Every text in a JSON content that is no key."""
    if isinstance(content, str):
        return [content]
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [text for one in inner for text in strings(one)]


def pictures(dataset: Path, out: Path) -> Path:
    """Whole blocks of test people, so that look-alikes are among them: the first that make at most 30.

    Person n's gallery pictures are of cameras n and n + 2 (modulo their number) in the first gallery draw. Every second person
    is a query, twelve in all: the first infrared picture of either camera in turn, with the words of text source witness.
    """
    from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
    from tvilfm_plugin.data.text_sources import draw_query_texts
    from tvilfm_plugin.synthetic.plans import Spec, draw_identities

    data = TriSYSUMM01(str(dataset.parent), dataset.name, modes=("all",), verbose=False)
    spec = json.loads((dataset / "synthetic.json").read_text(encoding="utf-8"))
    people = draw_identities(Spec(**{name: value for name, value in spec.items() if name != "generator"}))
    blocks: dict[int, list[int]] = {}
    for pid in people.test_ids:
        blocks.setdefault(people.people[pid].block, []).append(pid)
    chosen: list[int] = []
    for block in sorted(blocks):
        if len(chosen) + len(blocks[block]) > PEOPLE:
            break
        chosen += blocks[block]
    drawn = [data.gallery[index] for index in data.settings[0].draws[0]]
    texts = draw_query_texts("witness", data, data.settings[0], seed=0)
    gallery, queries = [], []
    out.mkdir(parents=True, exist_ok=True)
    for n, pid in enumerate(chosen):
        seen = sorted((item for item in drawn if item.pid == pid), key=lambda item: item.camid)
        for view in range(VIEWS):
            item = seen[(n + 2 * view) % len(seen)]
            name = f"visible_{pid:04d}_{item.camid}.jpg"
            shutil.copyfile(item.path, out / name)
            gallery.append({"path": name, "pid": pid, "camid": item.camid})
        if n % 2 == 0 and len(queries) < QUERIES:
            mine = [q for q, item in enumerate(data.query) if item.pid == pid]
            cameras = sorted({data.query[q].camid for q in mine})
            row = next(q for q in mine if data.query[q].camid == cameras[n // 2 % len(cameras)])
            name = f"infrared_{pid:04d}.jpg"
            shutil.copyfile(data.query[row].path, out / name)
            queries.append([name, texts.table[texts.rgb[0][row]], texts.table[texts.ir[row]], pid])
    title = f"{len(gallery)} visible pictures of {len(chosen)} synthetic people; {len(queries)} infrared queries"
    listed = {"title": title, "draw": {name: spec[name] for name in ("seed", "ids", "test_ids")}}
    write_text(out / "example.json", json.dumps(listed | {"gallery": gallery, "queries": queries}, indent=1) + "\n")
    return out / "example.json"


def measure(out: Path) -> Path:
    """The ranks of the dozen queries, into the list of the pictures."""
    from tvilfm_plugin.retrieval.example import LIST, example_set, ranks
    from tvilfm_plugin.retrieval.retriever import Retriever

    example = example_set(out)
    retriever = Retriever.from_pretrained(out.parent, device="cpu")
    retriever.embed_gallery(example.gallery)
    listed = json.loads((out / LIST).read_text(encoding="utf-8")) | {"ranks": ranks(retriever, example)}
    write_text(out / LIST, json.dumps(listed, indent=1) + "\n")
    return out / LIST


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("words", "pictures", "measure"))
    parser.add_argument("--dataset", type=Path, default=Path("datasets/synthetic_shipped"))
    parser.add_argument("--out", type=Path, default=MODEL / "pictures")
    args = parser.parse_args()
    done = {"words": lambda: words(args.dataset), "pictures": lambda: pictures(args.dataset, args.out)}
    print(done.get(args.what, lambda: measure(args.out))())


if __name__ == "__main__":
    main()
