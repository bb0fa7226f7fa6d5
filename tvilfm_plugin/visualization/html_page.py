"""One self-contained HTML page: pictures as data URIs, no script, no external request, every text escaped.

Four short functions and `html.escape`: templates of a library would be no shorter.
"""

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

# Whatever a page holds, a browser loads nothing for it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
body { max-width: 1180px; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1em; margin-bottom: .3em; }
nav a { margin-right: 1em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87em; font-variant-numeric: tabular-nums; margin: .6em 0; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #666; } .number { text-align: right; white-space: nowrap; }
figure { margin: 1em 0; } figure img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .9em; max-width: 75em; }
code { overflow-wrap: anywhere; }
@media print { body { max-width: none; margin: 0; } h2, figure { break-inside: avoid; } }
"""


class Section(NamedTuple):
    """A heading and ready HTML below it."""

    title: str
    body: str


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole document."""
    links = " ".join(f'<a href="#s{n}">{escape(one.title)}</a>' for n, one in enumerate(sections))
    body = "\n".join(f'<section id="s{n}"><h2>{escape(one.title)}</h2>\n{one.body}</section>' for n, one in enumerate(sections))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{paragraph(subtitle)}\n<nav>{links}</nav>\n{body}\n</body></html>\n"
    )


def paragraph(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def table(cells: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table, the header first; `names` leading columns hold text, the others numbers, which stand to the right."""

    def row(tag: str, line: Sequence[str]) -> str:
        kinds = ["" if i < names else ' class="number"' for i in range(len(line))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, line, strict=True))

    head = f"<thead><tr>{row('th', cells[0])}</tr></thead>"
    body = "".join(f"<tr>{row('td', line)}</tr>" for line in cells[1:])
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def picture(content: bytes, kind: str, caption: str, width: int) -> str:
    """A picture, at most `width` pixels wide, with a caption, which is also what a screen reader says."""
    media = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure><img src="data:{media};base64,{data}" alt="{escape(caption)}" width="{width}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def from_tables(markdown: str) -> str:
    """Our own Markdown (`evaluation.report.aligned`: headings, tables, notes) as HTML.

    In a table, columns that are aligned to the right hold numbers.
    """
    parts: list[str] = []
    lines = [line for line in markdown.splitlines() if line.strip()]
    while lines:
        line = lines.pop(0)
        if line.startswith("#"):
            parts.append(f"<h3>{escape(line.lstrip('# '))}</h3>")
        elif line.startswith("- "):
            notes = [line[2:]]
            while lines and lines[0].startswith("- "):
                notes.append(lines.pop(0)[2:])
            items = "".join(f"<li>{escape(note)}</li>" for note in notes)
            parts.append(f'<ul class="note">{items}</ul>')
        elif line.startswith("|"):
            rows = [line]
            while lines and lines[0].startswith("|"):
                rows.append(lines.pop(0))
            cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
            names = sum(not rule.endswith(":") for rule in cells[1])
            parts.append(table([cells[0], *cells[2:]], names))
        else:
            parts.append(paragraph(line))
    return "\n".join(parts)
