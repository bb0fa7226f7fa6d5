import base64
from html.parser import HTMLParser

import pytest

from tvilfm_plugin.evaluation.report import aligned
from tvilfm_plugin.visualization.html_page import Section, from_tables, page, picture, table

HOSTILE = "<script>alert('x')</script> & \"quoted\" ../secret"


class Seen(HTMLParser):
    """Tags, attributes and text of a page; raises nothing, so the tests ask for balance."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def test_a_page_needs_nothing_and_runs_nothing():
    body = table([["name", "value"], [HOSTILE, "1.0"]]) + picture(b"PNG bytes", "png", HOSTILE, 300)
    seen = Seen(page(HOSTILE, HOSTILE, [Section(HOSTILE, body), Section("other", "")]))
    assert not seen.open and "script" not in seen.tags and "link" not in seen.tags
    assert seen.texts.count(HOSTILE) == 7  # title, heading, subtitle, link, section, cell, caption
    sources = [value for name, value in seen.attributes if name in ("src", "href")]
    assert [source for source in sources if not source.startswith(("data:image/png;base64,", "#s"))] == []
    assert ("alt", HOSTILE) in seen.attributes and ("width", "300") in seen.attributes
    content = next(source for source in sources if source.startswith("data:")).split(",")[1]
    assert base64.b64decode(content) == b"PNG bytes"
    policy = dict(seen.attributes)["content"] if ("http-equiv", "Content-Security-Policy") in seen.attributes else ""
    assert [value for _, value in seen.attributes if value and value.startswith("default-src 'none'")] and policy
    with pytest.raises(KeyError):
        picture(b"", "jpg", "", 1)


def test_our_tables_become_html():
    cells = [["query", "source", "R-1"], ["infrared", "none", "20.19 ± 1.89"], ["a <b>", "self", "4.27"]]
    found = from_tables("\n".join(["## Title, all", "", *aligned(cells, names=2), "", "- one", "- two", "", "plain"]))
    seen = Seen(found)
    assert seen.texts == ["Title, all", *(cell for row in cells for cell in row), "one", "two", "plain"]
    assert seen.tags.count("tr") == 3 and seen.tags.count("td") == 6 and seen.tags.count("th") == 3
    # Numbers, and only they, stand to the right.
    assert found.count('<td class="number">') == 2 and '<th class="number">R-1</th>' in found
    assert seen.tags.count("ul") == 1 and seen.tags.count("li") == 2 and seen.tags.count("h3") == 1
