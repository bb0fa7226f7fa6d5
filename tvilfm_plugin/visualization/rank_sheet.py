"""Rank sheets: queries, the texts they used, and their best gallery images, right and wrong marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tvilfm_plugin.files.pictures import DepthError, Window, counts_of, open_picture
from tvilfm_plugin.visualization.figures import BLUE, DPI, INK, VERMILION, new_figure, save_figure
from tvilfm_plugin.visualization.figures import GREY as FAINT

if TYPE_CHECKING:  # matplotlib is slow to import and only needed when something is drawn
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

Picture = str | Path | np.ndarray
"""A file, or pixels (H, W) or (H, W, 3): uint8, or floats in [0, 1]."""


class Mark(NamedTuple):
    """How a hit is marked: the symbol says without colour what the frame says with it."""

    colour: str
    symbol: str
    meaning: str


RIGHT = Mark(BLUE, "\N{CHECK MARK}", "same person")
WRONG = Mark(VERMILION, "\N{BALLOT X}", "another person")
NO_TEXT = "no text"
TEXT_HEADINGS = ("Text with colour (T_rgb)", "Text of the IR image (T_ir)")

# Inches.
IMAGE_WIDTH, IMAGE_HEIGHT, TEXT_WIDTH, GAP, MARGIN = 0.9, 1.8, 2.6, 0.2, 0.25
LABEL_HEIGHT, LEGEND_HEIGHT, LINE_HEIGHT = 0.22, 0.2, 0.155
TITLE_SIZE, TEXT_SIZE, LABEL_SIZE = 12, 8, 8.5


class Hit(NamedTuple):
    """One gallery image of a ranking: the picture, whether it shows the query's person (None: unknown), its similarity."""

    image: Picture
    correct: bool | None
    score: float


class QueryRow(NamedTuple):
    """One row of the sheet: the infrared query, its texts (T_rgb, T_ir; "" for none), its hits best first, a label.

    A heading stands over its row and over those that follow without one: the same query, asked of several systems.
    """

    image: Picture
    texts: tuple[str, str]
    hits: Sequence[Hit]
    label: str = ""
    heading: str = ""


def draw_rank_sheet(rows: Sequence[QueryRow], out: str | Path, title: str = "") -> Path:
    """Draw queries with their best images: `evaluation.ranking.ranking`'s, so that what is drawn is what was measured."""
    return save_figure(build_figure(rows, title), out)


def build_figure(rows: Sequence[QueryRow], title: str = "") -> "Figure":
    """The sheet as a matplotlib figure that belongs to no window and touches no global state."""
    if not rows:
        raise ValueError("A rank sheet needs at least one query.")
    with_text = any(text for row in rows for text in row.texts)
    columns = max(len(row.hits) for row in rows)
    first_hit = MARGIN + IMAGE_WIDTH + GAP + (TEXT_WIDTH + GAP if with_text else 0)
    width = max(first_hit + columns * (IMAGE_WIDTH + GAP) - GAP + MARGIN, 5.0)

    sheet = _Sheet(new_figure(width, 1, layout=None))
    headline = sheet.wrap(title, width - 2 * MARGIN, TITLE_SIZE, bold=True)
    title_height = len(headline) * 0.24 + 0.12 if title else 0.0
    row_height = 2 * LABEL_HEIGHT + IMAGE_HEIGHT
    headings = [sheet.wrap(row.heading, width - 2 * MARGIN, LABEL_SIZE, bold=True) for row in rows]
    heading_height = sum(len(lines) * LABEL_HEIGHT + GAP / 2 for lines in headings if lines)
    height = MARGIN + title_height + LABEL_HEIGHT + len(rows) * row_height + heading_height + LEGEND_HEIGHT + MARGIN
    sheet.figure.set_size_inches(width, height)

    top = height - MARGIN
    for i, line in enumerate(headline):
        sheet.text(MARGIN, top - 0.24 * i, line, TITLE_SIZE, bold=True)
    top -= title_height
    sheet.text(MARGIN + IMAGE_WIDTH / 2, top, "query", LABEL_SIZE, FAINT, centre=True)
    for k in range(columns):
        centre = first_hit + k * (IMAGE_WIDTH + GAP) + IMAGE_WIDTH / 2
        sheet.text(centre, top, f"rank {k + 1}", LABEL_SIZE, FAINT, centre=True)
    top -= LABEL_HEIGHT

    for row, heading in zip(rows, headings, strict=True):
        if heading:
            sheet.rule(MARGIN, width - MARGIN, top)
            top -= GAP / 2
        for line in heading:
            sheet.text(MARGIN, top, line, LABEL_SIZE, bold=True)
            top -= LABEL_HEIGHT
        sheet.image(row.image, MARGIN, top)
        label = sheet.wrap(row.label, IMAGE_WIDTH + GAP * 0.8, LABEL_SIZE, most=1)
        sheet.text(MARGIN + IMAGE_WIDTH / 2, top - IMAGE_HEIGHT - 0.06, "".join(label), LABEL_SIZE, centre=True)
        if with_text:
            sheet.texts(row.texts, MARGIN + IMAGE_WIDTH + GAP, top)
        for k, hit in enumerate(row.hits):
            sheet.hit(hit, first_hit + k * (IMAGE_WIDTH + GAP), top)
        top -= row_height

    judged = any(hit.correct is not None for row in rows for hit in row.hits) or not columns
    sheet.legend([RIGHT, WRONG] if judged else [], width - MARGIN, top - 0.05)
    return sheet.figure


class _Sheet:
    """Places things on a figure in inches from its lower left corner; texts never wider than they are told."""

    def __init__(self, figure: "Figure") -> None:
        self.figure = figure
        canvas: Any = figure.canvas
        self.renderer: RendererAgg = canvas.get_renderer()
        self.widths: dict[tuple[str, float, bool], float] = {}

    def text(
        self, x: float, y: float, text: str, size: float, colour: str = INK, centre: bool = False, bold: bool = False
    ) -> None:
        """One line, its top at y."""
        if not text:
            return
        width, height = self.figure.get_size_inches()
        self.figure.text(
            x / width,
            y / height,
            text,
            fontproperties=_font(size, bold),
            color=colour,
            ha="center" if centre else "left",
            va="top",
            parse_math=False,  # a caption may hold a dollar sign
        )

    def rule(self, left: float, right: float, y: float) -> None:
        """A thin horizontal line."""
        from matplotlib.lines import Line2D

        width, height = self.figure.get_size_inches()
        self.figure.add_artist(Line2D([left / width, right / width], [y / height] * 2, color=FAINT, linewidth=0.6))

    def legend(self, marks: Sequence[Mark], right: float, top: float) -> None:
        """What marks and numbers mean, in one line that ends at `right`."""
        for text, colour in reversed([*((f"{m.symbol} {m.meaning}", m.colour) for m in marks), ("number: similarity", FAINT)]):
            right -= self.width(text, LABEL_SIZE, bold=colour != FAINT)
            self.text(right, top, text, LABEL_SIZE, colour, bold=colour != FAINT)
            right -= GAP

    def hit(self, hit: Hit, left: float, top: float) -> None:
        """A gallery image with its mark, its similarity below."""
        mark = None if hit.correct is None else RIGHT if hit.correct else WRONG
        self.image(hit.image, left, top, mark)
        middle, below = left + IMAGE_WIDTH / 2, top - IMAGE_HEIGHT - 0.06
        self.text(middle, below, f"{hit.score:.2f}", LABEL_SIZE, mark.colour if mark else INK, centre=True, bold=True)

    def texts(self, texts: tuple[str, str], left: float, top: float) -> None:
        """The texts of a query, each under its heading. Together they get the height of the image and share it."""
        if not any(texts):
            self.text(left, top, NO_TEXT, TEXT_SIZE, FAINT)
            return
        present = [(heading, text) for heading, text in zip(TEXT_HEADINGS, texts, strict=True) if text]
        lines = int(IMAGE_HEIGHT / LINE_HEIGHT) - 2 * len(present) + 1  # headings, and a blank line between the texts
        wrapped = [self.wrap(text, TEXT_WIDTH, TEXT_SIZE) for _, text in present]
        for i, (heading, text) in enumerate(present):
            others = sum(len(other) for other in wrapped) - len(wrapped[i])
            room = max(lines // len(present), lines - others)
            self.text(left, top, heading, TEXT_SIZE, FAINT)
            top -= LINE_HEIGHT
            for line in self.wrap(text, TEXT_WIDTH, TEXT_SIZE, most=room):
                self.text(left, top, line, TEXT_SIZE)
                top -= LINE_HEIGHT
            top -= LINE_HEIGHT

    def image(self, image: Picture, left: float, top: float, mark: Mark | None = None) -> None:
        """An image, centred in its cell without distortion, frame and symbol on just what is shown."""
        width, height = self.figure.get_size_inches()
        box = (left / width, (top - IMAGE_HEIGHT) / height, IMAGE_WIDTH / width, IMAGE_HEIGHT / height)
        axes = self.figure.add_axes(box)
        axes.imshow(_pixels(image), interpolation="lanczos" if not isinstance(image, np.ndarray) else "nearest")
        axes.set(xticks=[], yticks=[], anchor="C")
        for spine in axes.spines.values():
            spine.set(color=mark.colour if mark else FAINT, linewidth=3 if mark else 0.8)
        if mark:
            axes.annotate(
                mark.symbol,
                xy=(1, 1),
                xycoords="axes fraction",
                xytext=(-8, -8),
                textcoords="offset points",
                fontproperties=_font(LABEL_SIZE, bold=True),
                color="white",
                ha="center",
                va="center_baseline",
                bbox={"boxstyle": "circle,pad=0.2", "facecolor": mark.colour, "edgecolor": "white", "linewidth": 0.8},
            )

    def wrap(self, text: str, width: float, size: float, bold: bool = False, most: int | None = None) -> list[str]:
        """Lines no wider than `width`; beyond `most` lines the text ends in an ellipsis."""
        lines: list[str] = []
        filled = 0.0
        space = self.width(" ", size, bold)
        for word in text.split():
            length = self.width(word, size, bold)
            if lines and filled + space + length <= width:
                lines[-1] += f" {word}"
                filled += space + length
                continue
            while length > width and len(word) > 1:  # one word wider than the column
                fits = max(1, int(len(word) * width / length))
                while fits > 1 and self.width(word[:fits], size, bold) > width:
                    fits -= 1
                lines.append(word[:fits])
                word = word[fits:]
                length = self.width(word, size, bold)
            lines.append(word)
            filled = length
        if most is not None and len(lines) > most:
            lines = lines[:most]
            while lines[-1] and self.width(f"{lines[-1]} …", size, bold) > width:
                words = lines[-1].rpartition(" ")[0]
                lines[-1] = words or lines[-1][:-1]
            lines[-1] += " …"
        return lines

    def width(self, text: str, size: float, bold: bool) -> float:
        """Of one line, in inches."""
        key = (text, size, bold)
        if key not in self.widths:  # laying out a text costs a millisecond, and captions share their words
            measured = self.renderer.get_text_width_height_descent(text, _font(size, bold), ismath=False)
            self.widths[key] = measured[0] / DPI
        return self.widths[key]


def _font(size: float, bold: bool) -> "FontProperties":
    from matplotlib.font_manager import FontProperties

    # The family that matplotlib ships: it has the symbols, and a sheet looks the same everywhere.
    return FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")


def _pixels(image: Picture) -> np.ndarray:
    """(H, W, 3) for imshow: grey images become three equal channels, as a colour map would stretch their contrast."""
    if not isinstance(image, np.ndarray):
        try:
            return np.asarray(open_picture(image))
        except DepthError:
            counts = counts_of(image)
            if counts is None:
                raise
        # For the eye only: a sheet has no config that says what is black and white.
        return np.asarray(open_picture(image, Window(float(counts.min()), float(counts.max()) + 1)))
    if image.ndim == 2:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        raise ValueError(
            f"Cannot draw pixels of shape {image.shape} and type {image.dtype}: (H, W) or (H, W, 3) is needed, uint8 "
            "or floats in [0, 1]."
        )
    return image
