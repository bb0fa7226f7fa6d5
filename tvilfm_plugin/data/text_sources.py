"""Where the visible-image text of a test query comes from. Every source but the oracles could exist at search time.

T_ir is always the caption of the query's own infrared image; the sources differ in T_rgb.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.items import EvalSetting, Item, group_by_person
from tvilfm_plugin.data.phrases import LINE, read_phrases
from tvilfm_plugin.modality import Modality

SOURCES = ("none", "self", "witness", "oracle", "human", "wrong")
STYLES = ("paper", "released")


class QueryTexts(NamedTuple):
    """The texts of Q queries in T gallery draws.

    Attributes:
        source: one of `SOURCES`.
        table: the distinct strings.
        rgb: (T, Q) int64, index of T_rgb into `table` in gallery draw t, -1 = none.
        ir: (Q,) int64, index of T_ir, -1 = none.
        note: what a result must say about these texts, or "".
    """

    source: str
    seed: int
    table: tuple[str, ...]
    rgb: NDArray[np.int64]
    ir: NDArray[np.int64]
    note: str


class DatasetView(Protocol):
    """What is needed of a data set; `TriDataset` has it."""

    key: str
    query: list[Item]
    gallery: list[Item]
    settings: list[EvalSetting]
    query_modality: Modality
    visible_pool: list[Item]
    captions: dict[Modality, CaptionBank]
    note: str

    def relative(self, path: str) -> str: ...


class _Pool(NamedTuple):
    """Texts to draw from: identity -> one list for all gallery draws, or one list per draw."""

    texts: Mapping[int, Sequence[Sequence[str]]]
    note: str


def draw_query_texts(
    source: str,
    dataset_view: DatasetView,
    setting: EvalSetting | str,
    seed: int,
    *,
    style: str = "paper",
    human: str = "",
    filtered: bool = True,
) -> QueryTexts:
    """One text draw for every query of a setting.

    Args:
        source: "none" (no text), "self" (T_rgb is T_ir), "witness" (a visible image of the person that is in no gallery
            draw), "oracle" (any visible image of the person, gallery included), "human" (a phrase from a file) or
            "wrong" (another person's witness text; where there is none, another person's oracle text).
        style: for "oracle": "paper" draws an image and takes its caption, "released" draws an index into the identity's
            list, one per query in query order, from `RandomState(seed)`.
        human: for "human": a file as of `phrases.read_phrases`; an identity may have several.
        filtered: whether T_ir is read at all; if not, "human" needs no captions, and has no T_ir without them.
    """
    for what, chosen, choices in (("text source", source, SOURCES), ("oracle style", style, STYLES)):
        if chosen not in choices:
            raise ValueError(f"Unknown {what} {chosen!r}; choices are {', '.join(choices)}.")
    setting = _setting(dataset_view, setting)
    draws, pids = len(setting.draws), [item.pid for item in dataset_view.query]
    absent = np.full(len(pids), -1, dtype=np.int64)
    if source == "none":
        return QueryTexts(source, seed, (), np.tile(absent, (draws, 1)), absent, dataset_view.note)
    if dataset_view.query_modality is not Modality.IR:
        raise ValueError(f"Visible queries are searched by image only: use text source 'none', not {source!r}.")
    bare_images = source == "human" and not filtered and not dataset_view.captions
    ir = [] if bare_images else _own_captions(dataset_view, source)
    if source == "self":
        rgb = [ir] * draws
        note = "T_rgb is the infrared image's own caption" + (": Eq. 7 then gives exactly f_ir" if filtered else "")
    elif source == "oracle" and style == "released":
        rgb, note = _released(dataset_view.captions[Modality.RGB], pids, draws, seed)
    else:
        pool = _pool(source, dataset_view, setting, human)
        rgb = _draw(pool, pids, ir or [""] * len(pids), draws, seed, wrong=source == "wrong")
        bare = len(set(pids) - set(pool.texts))
        # They have no right answer in any gallery, so no metric counts them: their text only must be defined.
        unseen = f"{bare} identities without any visible image keep T_ir as T_rgb (their queries count in nothing)"
        note = _join(unseen if bare else "", pool.note)
    table, index = _numbered([ir, *rgb])
    return QueryTexts(source, seed, table, np.stack(index[1:]), index[0] if ir else absent, _join(note, dataset_view.note))


def _numbered(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """The distinct texts of all rows, and each row as indices into them."""
    numbers: dict[str, int] = {}
    index = [np.array([numbers.setdefault(text, len(numbers)) for text in row], dtype=np.int64) for row in rows]
    return tuple(numbers), index


def _setting(view: DatasetView, setting: EvalSetting | str) -> EvalSetting:
    if isinstance(setting, EvalSetting):
        return setting
    found = [known for known in view.settings if known.name == setting]
    if not found:
        raise ValueError(f"No setting {setting!r}; choices are {', '.join(known.name for known in view.settings)}.")
    return found[0]


def _own_captions(view: DatasetView, source: str) -> list[str]:
    for modality in (Modality.RGB, Modality.IR):
        if modality not in view.captions:
            raise ValueError(
                f"Text source {source!r} needs captions, but the data set was built without {modality.value} captions. "
                "Build it with text=True, or use text source 'none'."
            )
    bank, paths = view.captions[Modality.IR], [view.relative(item.path) for item in view.query]
    missing = [path for path in paths if path not in bank]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(paths)} query images have no caption in {bank.source}, e.g. "
            f"{', '.join(missing[:5])}. Generate them (`tvilfm captions generate`), or use text source 'none'."
        )
    return [bank[path].text for path in paths]


def _draw(pool: _Pool, pids: Sequence[int], own: Sequence[str], draws: int, seed: int, wrong: bool) -> list[list[str]]:
    """One uniform number per query picks its text in every draw, so draws differ only where their pools do.

    A query whose identity has no texts keeps its own.
    """
    generator = np.random.RandomState(seed)
    where, who = generator.random_sample(len(pids)), generator.random_sample(len(pids))
    persons = list(pids)
    if wrong:
        others = sorted(pool.texts)
        if len(others) < 2:
            raise ValueError("Text source 'wrong' needs the texts of at least two test identities.")
        rank = {pid: n for n, pid in enumerate(others)}
        # A step of 1..n-1 round the ring of identities is uniform over the others.
        steps = [1 + int(u * (len(others) - 1)) for u in who]
        persons = [
            others[(rank[pid] + step) % len(others)] if pid in rank else pid for pid, step in zip(pids, steps, strict=True)
        ]
    rows = []
    for t in range(draws):
        pools = [pool.texts.get(pid, [[text]]) for pid, text in zip(persons, own, strict=True)]
        lists = [texts[t] if len(texts) > 1 else texts[0] for texts in pools]
        rows.append([texts[int(u * len(texts))] for texts, u in zip(lists, where, strict=True)])
    return rows


def _released(bank: CaptionBank, pids: Sequence[int], draws: int, seed: int) -> tuple[list[list[str]], str]:
    generator = np.random.RandomState(seed)
    texts = []
    for pid in pids:
        captions = bank.of_person(pid)
        texts.append(captions[generator.randint(0, len(captions))].text)
    return [texts] * draws, f"released draw: one caption per query from {Path(bank.persons_source).name}"


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _visible_texts(view: DatasetView) -> dict[int, list[str]]:
    """Caption of every visible image of the queried identities, in the order of `visible_pool`."""
    bank, queried = view.captions[Modality.RGB], {item.pid for item in view.query}
    images = [item for item in view.visible_pool if item.pid in queried]
    missing = [path for item in images if (path := view.relative(item.path)) not in bank]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(images)} visible images of the queried identities have no caption in "
            f"{bank.source}, e.g. {', '.join(missing[:5])}. Generate them (`tvilfm captions generate`), or use text "
            "source 'self'."
        )
    texts: dict[int, list[str]] = {}
    for item in images:
        texts.setdefault(item.pid, []).append(bank[view.relative(item.path)].text)
    return texts


def _pool(source: str, view: DatasetView, setting: EvalSetting, human: str) -> _Pool:
    if source == "witness":
        return _witness_pool(view, setting)
    if source == "wrong":
        return _wrong_pool(view, setting)
    return _human_pool(human, view) if source == "human" else _oracle_pool(view)


def _oracle_pool(view: DatasetView) -> _Pool:
    bank = view.captions[Modality.RGB]
    queried = sorted({item.pid for item in view.query})
    by_image = any(view.relative(item.path) in bank for item in view.visible_pool)
    if by_image or bank.persons is None:
        return _Pool({pid: [texts] for pid, texts in _visible_texts(view).items()}, "")
    # Some releases describe the test persons by list only.
    described = [pid for pid in queried if pid in bank.persons or any(i.pid == pid for i in view.visible_pool)]
    lists = {pid: [[caption.text for caption in bank.of_person(pid)]] for pid in described}
    note = "drawn from each identity's list, as test images have no captions of their own"
    return _Pool(lists, note)


def _witness_pool(view: DatasetView, setting: EvalSetting) -> _Pool:
    texts, places = _visible_texts(view), group_by_person(view.visible_pool)
    union = {item.path for item in view.gallery}
    drawn = [{view.gallery[index].path for index in draw} for draw in setting.draws]
    pool: dict[int, list[list[str]]] = {}
    per_draw, without = [], []
    for pid, captions in texts.items():
        paths = [view.visible_pool[index].path for index in places[pid]]
        free = [text for path, text in zip(paths, captions, strict=True) if path not in union]
        if free:
            pool[pid] = [free]
            continue
        per_draw.append(pid)
        pool[pid] = [[t for p, t in zip(paths, captions, strict=True) if p not in gallery] for gallery in drawn]
        if not all(pool[pid]):
            without.append(pid)
    if without:
        raise ValueError(
            f"Text source 'witness' in setting {setting.name!r}: for {len(without)} of {len(texts)} identities "
            f"({', '.join(map(str, without[:5]))}{', ...' if len(without) > 5 else ''}) every visible image is in the "
            "gallery, so each text would describe a gallery image. RegDB's gallery is every visible test image: build "
            "the data set with held_out=k to keep k images per identity out of it. Elsewhere use fewer shots, or text "
            "source 'self'."
        )
    fallback = f"{len(per_draw)} of {len(texts)} identities have no image outside all draws: theirs is outside each one"
    return _Pool(pool, fallback if per_draw else "")


def _wrong_pool(view: DatasetView, setting: EvalSetting) -> _Pool:
    try:
        pool, kind = _witness_pool(view, setting), "witness"
    except ValueError:
        pool, kind = _oracle_pool(view), "oracle"
    return _Pool(pool.texts, _join(f"another identity's {kind} text", pool.note))


def _human_pool(file: str, view: DatasetView) -> _Pool:
    if not file:
        raise ValueError(f"Text source 'human' needs a file of lines {LINE!r} (TEST.HUMAN_TEXTS).")
    pids = sorted({item.pid for item in view.query})
    phrases = read_phrases(file, view.key, pids)
    return _Pool({pid: [phrases[pid]] for pid in pids}, f"phrases of {Path(file).name}")
