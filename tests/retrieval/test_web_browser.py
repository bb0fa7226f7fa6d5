"""The page in a real headless Chromium, on a trained model. Skipped where Chromium or playwright is missing."""

import shutil

import pytest

pytest.importorskip("starlette")
pytest.importorskip("fastreid")
pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
from playwright import sync_api as playwright
from web_server import running

from tvilfm_plugin.retrieval.records import Record
from tvilfm_plugin.retrieval.retriever import Retriever
from tvilfm_plugin.retrieval.web import Example, make_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium on the path", allow_module_level=True)
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def port(tiny, trained):
    images = tiny.folder / "data" / "SYSU-MM01"
    records = [
        Record(str(path), int(path.parts[-2]), int(path.parts[-3][3])) for path in sorted(images.glob("cam[1245]/*/*.jpg"))
    ]
    retriever = Retriever.from_checkpoint(tiny.config, trained / "model_final.pth", device="cpu")
    retriever.embed_gallery(records)
    queries = sorted(images.glob("cam3/*/0001.jpg"))
    offered = [Example(str(path), "a man in red", "a man", int(path.parts[-2])) for path in queries]
    with running(make_app(retriever, offered, "A gallery & <b>more</b>")) as port:
        yield port


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser, port):
    opened = browser.new_page()
    opened.requested, opened.complaints = [], []
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("console", lambda message: opened.complaints.append(message.text) if message.type == "error" else None)
    opened.goto(f"http://127.0.0.1:{port}/")
    opened.wait_for_selector("#members input")
    yield opened
    own = (f"http://127.0.0.1:{port}/", f"blob:http://127.0.0.1:{port}/")
    assert opened.requested and not [url for url in opened.requested if not url.startswith(own)], "a request to another host"
    # Chromium reports every refused request; the page itself must not fail, nor the policy be broken.
    assert not [text for text in opened.complaints if "status of 4" not in text]
    opened.close()


def upload(tiny, name: str = "a.jpg") -> dict:
    path = next((tiny.folder / "data" / "SYSU-MM01").glob("cam6/*/0001.jpg"))
    return {"name": name, "mimeType": "image/jpeg", "buffer": path.read_bytes()}


def search(page) -> list[str]:
    """Press the button; the names of the members that voted, from the first hit."""
    with page.expect_response("**/search"):
        page.click("#search")
    page.wait_for_selector("#results:not(.busy)")
    # Fails for a picture that does not come or is none.
    page.locator("#hits img").evaluate_all("(images) => Promise.all(images.map((image) => image.decode()))")
    return page.locator("#hits li:first-child .share span").all_inner_texts()


def test_picture_and_words(page, tiny):
    assert page.locator("#about").inner_text() == "A gallery & <b>more</b>"
    page.set_input_files("#file", upload(tiny))
    page.wait_for_selector("#preview", state="visible")
    page.fill("#text", "a man in a red jacket")
    page.fill("#infrared-text", "a man in a jacket")
    page.select_option("#top", "5")
    assert search(page) == ["infrared", "text", "fusion"]
    assert page.locator("#hits li").count() == 5
    for hit in page.locator("#hits .facts").all():
        similarity = float(hit.locator(".score span").last.inner_text())
        shares = [float(text.replace("\N{MINUS SIGN}", "-")) for text in hit.locator("output").all_inner_texts()]
        assert sum(shares) == pytest.approx(similarity, abs=0.002)
        assert "person" in hit.locator(".who").inner_text()
    assert page.locator("#message").inner_text() == "5 of 56 pictures, by infrared + text + fusion."


def test_switching_members_searches_again(page, tiny):
    page.set_input_files("#file", upload(tiny))
    page.fill("#text", "a man in a red jacket")
    page.fill("#infrared-text", "a man in a jacket")
    search(page)
    for off, left in (("fusion", ["infrared", "text"]), ("ir", ["text"])):
        with page.expect_response("**/search"):
            page.uncheck(f"#members input[value={off}]")
        playwright.expect(page.locator("#hits li:first-child .share span")).to_have_text(left)
    with page.expect_response("**/search"):
        page.uncheck("#members input[value=text]")
    page.wait_for_selector("#message.error")
    assert page.locator("#message").inner_text() == "Every member is switched off; switch one on."
    assert page.locator("#hits li").count() == 0
    with page.expect_response("**/search"):
        page.check("#members input[value=ir]")
    page.wait_for_selector("#hits li")


def test_words_alone_and_picture_alone(page, tiny):
    page.fill("#text", "a man in a red jacket")
    assert search(page) == ["text"]
    assert "no infrared image: infrared, fusion left out" in page.locator("#message").inner_text()
    page.click("#clear")
    page.set_input_files("#file", upload(tiny))
    assert search(page) == ["infrared"]


def test_an_example_marks_the_same_person(page):
    page.locator("#example-list button").nth(1).click()
    page.wait_for_selector("#hits li")
    assert page.locator("#text").input_value() == "a man in red" and page.locator("#preview").is_visible()
    page.select_option("#top", "50")
    search(page)
    for hit in page.locator("#hits li").all():
        marked = hit.locator(".mark").all_inner_texts() == ["\N{CHECK MARK} same person"]
        assert marked == hit.locator(".who").inner_text().startswith("person 2 ")
    assert page.locator("#hits li.same").count() == page.locator("#hits .mark").count() == 8
    # Another picture is another query, of a person that nobody knows.
    page.click("#remove")
    search(page)
    assert page.locator("#hits li").count() and not page.locator("#hits li.same").count()


def test_what_is_refused_is_said(page):
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"<svg onload='alert(1)'>"})
    search(page)
    assert page.locator("#message.error").inner_text().startswith("This is no picture that can be read")
    assert page.locator("#unshown").is_visible() and page.locator("#preview").is_hidden()
    page.click("#remove")
    search(page)
    assert page.locator("#message.error").inner_text().startswith("Nothing to search for")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": bytes((8 << 20) + 1)})
    page.wait_for_selector("#message.error >> text=too large")
    assert page.locator("#preview").is_hidden()


def test_markup_stays_text(page):
    page.fill("#text", "<img src=x onerror=alert(1)>")
    search(page)
    assert page.locator("#hits li").count() == 10 and page.locator("img[src=x]").count() == 0


def test_dropping_a_picture(page, tiny):
    data = list(upload(tiny)["buffer"])
    page.evaluate(
        """(data) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], "a.jpg", { type: "image/jpeg" }));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }""",
        data,
    )
    page.wait_for_selector("#preview", state="visible")
    assert search(page) == ["infrared"]


def test_a_server_that_has_gone(browser, port):
    opened = browser.new_page()
    opened.goto(f"http://127.0.0.1:{port}/")
    opened.wait_for_selector("#members input")
    opened.route("**/search", lambda route: route.abort())
    opened.fill("#text", "a man")
    opened.click("#search")
    opened.wait_for_selector("#message.error")
    assert opened.locator("#message").inner_text() == "No answer from the server; is it still running?"
    opened.close()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_examples_and_results_are_in_sight(browser, port, width, height):
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.goto(f"http://127.0.0.1:{port}/")
    opened.wait_for_selector("#example-list img")
    assert opened.evaluate("document.documentElement.scrollWidth") == width, "the page is wider than the screen"
    example = opened.locator("#example-list button").first
    assert example.bounding_box()["y"] + example.bounding_box()["height"] < height / 2
    assert opened.locator("#search").bounding_box()["y"] < height
    example.click()
    opened.wait_for_selector("#hits li")
    message, hit = (opened.locator(one).first.bounding_box() for one in ("#message", "#hits li"))
    assert message["y"] >= 0 and hit["y"] + hit["height"] < height
    opened.close()


def test_dark_where_the_visitor_wants_it(browser, port):
    seen = {}
    for scheme in ("light", "dark"):
        opened = browser.new_page(color_scheme=scheme)
        opened.goto(f"http://127.0.0.1:{port}/")
        style = "getComputedStyle(document.body)"
        seen[scheme] = [
            opened.evaluate(f"{style}.{name}.match(/\\d+/g).slice(0, 3).map(Number)") for name in ("backgroundColor", "color")
        ]
        opened.close()
    assert sum(seen["light"][0]) > 700 > 300 > sum(seen["light"][1])
    assert sum(seen["dark"][0]) < 100 < 600 < sum(seen["dark"][1])
