import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from hostile_requests import picture, png, zeros
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tvilfm_plugin.files.pictures import Window, open_picture
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval import web_query
from tvilfm_plugin.retrieval.web_query import MEMBERS, Refused, decode_picture, read_embedding, read_search

UNKNOWN = "Unknown field; a search has image, text, infrared_text, members, top, images, threshold and answers."


def body(**fields) -> bytes:
    if isinstance(fields.get("image"), bytes):
        fields["image"] = base64.b64encode(fields["image"]).decode()
    return json.dumps(fields).encode()


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes, members=MEMBERS):
    return read_search(data, members).query


def reason(data: bytes, members=MEMBERS) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        read(data, members)
    return refused.value.status, refused.value.reason


def test_a_whole_query():
    query = read(body(image=picture("PNG"), text=" a  man\nin\x00red ", infrared_text="a man", members=["fusion", "ir"], top=3))
    assert query.text == "a man in red" and query.infrared_text == "a man" and query.top == 3
    assert query.members == (Modality.IR, Modality.FUSION)  # the model's order, whatever order the client has
    assert query.infrared.mode == "RGB" and query.infrared.size == (48, 96)


def test_what_is_missing_has_a_default():
    for data in (body(text="a man"), body(text="a man", image=None, infrared_text=None, members=None, top=None)):
        assert read(data) == (None, "a man", "", MEMBERS, 10)
    assert read(body(image=picture())).text == ""


@pytest.mark.parametrize("kind", web_query.IMAGE_FORMATS)
def test_pixels_are_those_of_the_file(kind):
    data = picture(kind)
    with Image.open(io.BytesIO(data)) as expected:
        assert np.array_equal(np.asarray(decode_picture(data)), np.asarray(expected.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_other_modes_become_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_picture(saved(Image.new(mode, (20, 30)), kind)).mode == "RGB"


def test_a_picture_stands_upright_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert decode_picture(saved(Image.new("RGB", (20, 30)), "JPEG", exif=exif)).size == (30, 20)


TOO_MANY = (413, "The picture has too many pixels; at most 16 million.")
NO_PICTURE = (422, "This is no picture that can be read, or it is damaged; PNG, JPEG, BMP are accepted.")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(5000, 5000), TOO_MANY),
        (png(60_000, 60_000), TOO_MANY),
        (png(11_000, 100), TOO_MANY),
        (saved(Image.new("L", (7, 90))), (422, "The picture is too small; each side needs at least 8 pixels.")),
        (saved(Image.new("I;16", (20, 30))), (422, web_query.DEEP)),
        (picture()[:-200], NO_PICTURE),
        (picture()[:20], NO_PICTURE),
        (picture("GIF"), NO_PICTURE),
        (picture("TIFF"), NO_PICTURE),
        (picture("WEBP"), NO_PICTURE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_PICTURE),
        (png(64, 64, (b"iCCP", b"k\0\0" + zeros(60_000_000))), NO_PICTURE),
        (bytes(web_query.IMAGE_BYTES + 1), (413, "The picture's file is too large; at most 8 MiB.")),
    ],
)
def test_refused_pictures(data, expected):
    with pytest.raises(Refused) as refused:
        decode_picture(data)
    assert (refused.value.status, refused.value.reason) == expected
    if len(data) <= web_query.IMAGE_BYTES:
        assert reason(body(image=data)) == expected


def test_counts_of_a_thermal_camera_follow_the_models_window():
    counts = np.random.default_rng(0).integers(19000, 29000, (30, 20)).astype(np.uint16)
    window, data = Window(20000, 28000), saved(Image.fromarray(counts))
    expected = open_picture(Image.fromarray(counts), window)
    assert np.array_equal(np.asarray(decode_picture(data, window)), np.asarray(expected)) and len(set(expected.getdata())) > 99
    (first, second) = read_search(body(image=data, images=[base64.b64encode(data).decode()]), window=window).pictures
    assert first == second == expected
    assert np.array_equal(np.asarray(decode_picture(picture(), window)), np.asarray(decode_picture(picture())))


def test_the_largest_picture_is_accepted():
    side = 4000
    rows = zlib.compress(bytes(side * (3 * side + 1)))
    assert decode_picture(png(side, side, data=rows)).size == (side, side)
    assert side * side == web_query.IMAGE_PIXELS


def test_a_header_that_lies_about_the_size_costs_nothing():
    data = bytearray(saved(Image.new("RGB", (20, 30)), "BMP"))
    data[18:26] = struct.pack("<ii", 100_000, -(2**31))
    assert reason(body(image=bytes(data))) in (TOO_MANY, NO_PICTURE)


NO_OBJECT = (400, "The request is no JSON object in UTF-8.")
NO_BASE64 = (422, "image is the picture's bytes in base64.")
WHOLE = (422, "top is a whole number from 1 to 50.")
NAMES = (422, "members is a list of ir, text, fusion.")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", NO_OBJECT),
        (b"[]", NO_OBJECT),
        (b'{"text": "a", "text": "b"}', (422, "A field stands in the request twice; give each once.")),
        (b"\xff\xfe{}", NO_OBJECT),
        (b"[" * 200_000, NO_OBJECT),
        (b'{"top": ' + b"9" * 10_000 + b"}", NO_OBJECT),
        (body(), (422, "Nothing to search for: give an infrared picture, what the witness said, or both.")),
        (body(image="", text=" \n"), (422, "Nothing to search for: give an infrared picture, what the witness said, or both.")),
        (body(text="a", path="/x"), (422, UNKNOWN)),
        (body(text=5), (422, "text is a text.")),
        (body(text="a", infrared_text=["a"]), (422, "infrared_text is a text.")),
        (body(text="a" * 501), (413, "text is too long; at most 500 characters.")),
        (b'{"text": "\\ud800"}', (422, "text holds half a character (a lone surrogate).")),
        (body(image="../../secret.png"), NO_BASE64),
        (body(image={"path": "/x"}), NO_BASE64),
        (body(image="é"), NO_BASE64),
        (body(image="A" * (web_query.IMAGE_BYTES * 4 // 3 + 5)), (413, "The picture's file is too large; at most 8 MiB.")),
        (body(text="a", top=0), WHOLE),
        (body(text="a", top=51), WHOLE),
        (body(text="a", top=True), WHOLE),
        (body(text="a", top="5"), WHOLE),
        (body(text="a", members="ir"), NAMES),
        (body(text="a", members=["rgb"]), NAMES),
        (body(text="a", members=[["ir"]]), NAMES),
        (body(text="a", members=[]), (422, "Every member is switched off; switch one on.")),
    ],
)
def test_refused_fields(data, expected):
    assert reason(data) == expected


def test_a_model_without_text_refuses_words():
    assert reason(body(image=picture(), text="a"), [Modality.IR]) == (
        422,
        "This model has no text: search with a picture only.",
    )
    assert read(body(image=picture()), [Modality.IR]).members == (Modality.IR,)


def test_the_body_limit_admits_the_largest_query():
    text = json.dumps("\U0001f4a9" * web_query.TEXT_CHARACTERS)
    rest = '{"image": "", "text": , "infrared_text": , "members": ["ir", "text", "fusion"], "top": 50}'
    longest = 4 * -(-web_query.IMAGE_BYTES // 3) + 2 * len(text) + len(rest)
    assert longest < web_query.BODY_BYTES < 1.01 * longest


def test_further_pictures_and_a_threshold():
    images = [base64.b64encode(picture("PNG")).decode() for _ in range(3)]
    found = read_search(json.dumps({"image": images[0], "images": images[1:], "threshold": 1}).encode())
    assert [one.size for one in found.pictures] == [(48, 96)] * 3 and found.pictures[0] is found.query.infrared
    assert found.threshold == 1.0 and found.query.top == 10
    plain = read_search(body(text="a man"))
    assert plain.pictures == () and plain.threshold is None and plain.query == read(body(text="a man"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"threshold": float("nan")}, "threshold is a similarity from -3 to 3."),
        ({"threshold": 4}, "threshold is a similarity from -3 to 3."),
        ({"threshold": True}, "threshold is a similarity from -3 to 3."),
        ({"threshold": "1"}, "threshold is a similarity from -3 to 3."),
        ({"images": "AAAA"}, "images is a list of pictures' bytes in base64."),
        ({"images": [5]}, "images is a list of pictures' bytes in base64."),
        ({"images": ["AAAA"]}, "images holds further pictures of the person in image; give image first."),
        ({"image": "AAAA", "images": ["AAAA"] * 16}, "At most 16 pictures of one person can be searched for at once."),
        ({"image": "A" * (6 << 20), "images": ["A" * (6 << 20)]}, "The pictures' files are too large; at most 8 MiB together."),
        ({"path": 1}, UNKNOWN),
    ],
)
def test_refused_searches(fields, expected):
    with pytest.raises(Refused) as refused:
        read_search(json.dumps({"text": "a", **fields}).encode())
    assert refused.value.reason == expected


SENT = base64.b64encode(picture("PNG")).decode()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["ir", "text", "fusion", "a man in red", SENT, "\ud800", "a" * 501, 10, 0.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [*web_query.FIELDS, "images", "threshold", "answers", "texts", "modality", "path"]


@settings(max_examples=300, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), has_text=st.booleans())
def test_any_request_is_a_search_within_the_limits_or_refused(fields, has_text):
    data = json.dumps(fields).encode()
    for read in (lambda: read_search(data, MEMBERS if has_text else MEMBERS[:1]), lambda: read_embedding(data, has_text)):
        try:
            found = read()
        except Refused as refused:
            assert 400 <= refused.status < 500 and refused.reason
            continue
        if isinstance(found, web_query.Search):
            assert 1 <= found.query.top <= web_query.HITS and len(found.pictures) <= web_query.PICTURES
            assert found.query.text or found.pictures
            assert found.threshold is None or -3 <= found.threshold <= 3
            assert has_text or found.query.members == (Modality.IR,)
        else:
            modality, images, words = found
            assert bool(images) != bool(words) and (modality is Modality.TEXT) == bool(words) and (has_text or not words)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_refused(data):
    with pytest.raises(Refused):
        read_search(data)
