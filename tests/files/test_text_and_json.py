"""Encodings, and JSON that others wrote: right, or an error that names the file."""

import contextlib
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvilfm_plugin.data.captions import CaptionBank
from tvilfm_plugin.data.datasets.listing import read_ids, read_list
from tvilfm_plugin.data.datasets.sysu_mm01 import TriSYSUMM01
from tvilfm_plugin.files.json import JsonError, checked, parse_json, read_json
from tvilfm_plugin.files.text import TextFileError, decode_text, is_blank, plain_name, read_lines, read_text

GOOD = ("utf-8", "utf-8-sig", "utf-16")
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=12)
KEY = "cam1/0001/0001.jpg"


@settings(max_examples=40, deadline=None)
@given(text=WORDS, encoding=st.sampled_from([*GOOD, "utf-16-le-bom", "utf-16-be-bom"]))
def test_encodings(tmp_path_factory, text, encoding):
    file = tmp_path_factory.getbasetemp() / "text.txt"
    bom = encoding.endswith("-bom")
    file.write_bytes(("\ufeff" * bom + text).encode(encoding.removesuffix("-bom")))
    assert read_text(file) == text


def test_other_encodings_are_refused_by_name(tmp_path):
    for encoding, text, said in (
        ("gbk", "一个人", "is not UTF-8"), ("latin-1", "é", "is not UTF-8"), ("utf-32", "a", "is UTF-32"),
        ("utf-16-le", "\ufeffa\ud83d", "is not UTF-16"),
    ):  # fmt: skip
        (tmp_path / "a.json").write_bytes(text.encode(encoding, "surrogatepass"))
        with pytest.raises(TextFileError, match=f"a.json {said}.*save it again as UTF-8"):
            read_json(tmp_path / "a.json")
    (tmp_path / "lines.txt").write_bytes(b"a\r\nb\rc\nd")
    assert read_lines(tmp_path / "lines.txt") == ["a", "b", "c", "d"]
    assert decode_text(b"\xef\xbb\xbfx", "here") == "x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no valid JSON .*it is empty"),
        ("<html>", "is no valid JSON .*begins with '<html>'"),
        ('{"a": 1, "b": {"x": 1, "x": 2}}', "has the key 'x' twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 50_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "thousands of digits"),
        ('{"a": NaN}', "holds NaN, which is no number of JSON; write null, or a number"),
        ("[-Infinity]", "holds -Infinity, which"),
        ("[1e999]", "holds 1e999, which"),
    ],
)
def test_bad_json_names_its_file(tmp_path, content, said):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(JsonError, match=f"a.json .*{said}|a.json {said}"):
        read_json(tmp_path / "a.json")


def test_a_schema_names_the_first_wrong_value():
    assert checked({"a": ["x"]}, dict[str, list[str]], "here") == {"a": ["x"]}
    with pytest.raises(JsonError, match=r"here: \['a'\]\[1\] is a number, 5; .*\(2 values are wrong\)"):
        checked(parse_json('{"a": ["x", 5, true]}', "here"), dict[str, list[str]], "here")


@contextlib.contextmanager
def warnings_of(name):
    """Messages of a logger; hypothesis runs many examples within one `caplog`."""
    log = []
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())
    logging.getLogger(name).addHandler(handler)
    yield log
    logging.getLogger(name).removeHandler(handler)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["", " a man ", "ein Mäntel"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["en", "description"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(value=VALUES, field=st.sampled_from(["description", "aug_description"]), encoding=st.sampled_from(GOOD))
def test_captions_are_texts_or_refused(tmp_path_factory, value, field, encoding):
    file = tmp_path_factory.getbasetemp() / "caption_dict.json"
    file.write_text(json.dumps({KEY: {"description": "a boy", field: value}}, ensure_ascii=False), encoding=encoding)

    def read():
        return CaptionBank.from_files(file, None, None, TriSYSUMM01.relative)

    if value is not None and not isinstance(value, str):
        with pytest.raises(ValueError, match=f"caption_dict.json: .*'{field}'"):
            read()
        return
    bank, text = read(), (value or "").strip()
    if field == "description":
        assert bank[KEY].text == text if text else KEY not in bank
    else:
        assert bank[KEY] == ("a boy", text)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(VALUES, max_size=3), key=st.sampled_from(["6", " 6", "06", "٣", "²", "-1", "6.0", "x", "9" * 25]))
def test_captions_by_person_are_the_texts_of_a_list(tmp_path_factory, texts, key):
    file = tmp_path_factory.getbasetemp() / "id_caption_map.json"
    file.write_text(json.dumps({key: texts}))
    if key not in ("6", " 6", "06"):
        with pytest.raises(ValueError, match="id_caption_map.json"):
            CaptionBank.from_files(None, None, file, TriSYSUMM01.relative)
        return
    entries = [one for entry in texts for one in (entry if isinstance(entry, list) else [entry])]
    with warnings_of("fastreid.tvilfm_plugin.data.captions") as log:
        bank = CaptionBank.from_files(None, None, file, TriSYSUMM01.relative)
    assert [c.text for c in (bank.persons or {}).get(6, ())] == [one for one in entries if isinstance(one, str)]
    odd = sum(not isinstance(one, str) for one in entries)
    assert [f"id_caption_map.json: {odd} entries are no texts and left out" in line for line in log] == [True] * bool(odd)


def test_nothing_of_a_caption_file_is_dropped(tmp_path, caplog):
    file = tmp_path / "map.json"
    file.write_text('{"6": ["a"], "06": ["b"]}')
    with pytest.raises(ValueError, match="identity 6 twice, as '6' and as '06'"):
        CaptionBank.from_files(None, None, file, TriSYSUMM01.relative)
    file.write_text(json.dumps({KEY: "a", f"x/{KEY}": "b"}))
    assert CaptionBank.from_files(file, None, None, TriSYSUMM01.relative)[KEY].text == "a"
    assert "describes 1 images twice, differently" in caplog.text
    file.write_text(json.dumps({KEY: {"description": "\ud800 👕"}}))
    with pytest.raises(ValueError, match=r"map.json holds half a character \(.ud800\)"):
        CaptionBank.from_files(file, None, None, TriSYSUMM01.relative)


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    separator=st.sampled_from([",", ", ", "\n", "\r\n", " ", "\t", ",\n"]),
    encoding=st.sampled_from(GOOD),
    last=st.sampled_from(["", "\n", ",\n", "\r\n\r\n"]),
)
def test_id_files(tmp_path_factory, ids, separator, encoding, last):
    file = tmp_path_factory.getbasetemp() / "train_id.txt"
    file.write_bytes((separator.join(map(str, ids)) + last).encode(encoding))
    assert read_ids(file) == sorted(set(ids))


def test_id_files_and_lists_that_are_refused(tmp_path):
    file = tmp_path / "a.txt"
    for content in ("", "abc", "1;2", "-1,4", "²,4", "１,４", "1.5", "9" * 30, "1,4\0"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="a.txt: expected one line of comma-separated identity numbers"):
            read_ids(file)
    for content in ("x", "x ²", "x -1", "x 1.5", "x " + "9" * 30):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match="a.txt, line 1: expected 'path label'"):
            read_list(file)
    file.write_text("Visible/1/a.bmp 0\nVisible\\1\\a.bmp 0\n./Visible/1/a.bmp 1\n")
    with pytest.raises(ValueError, match=r"a.txt, line 3: Visible/1/a.bmp has label 1, but 0 in line 1; keep one"):
        read_list(file)
    file.write_text("Visible/1/a.bmp 0\nVisible\\1\\a.bmp 0\n")
    assert read_list(file) == [("Visible/1/a.bmp", 0)] * 2


@given(st.text(alphabet="\u200b\u200d\ufeff\u202e\u00ad \t\n\x00\x1b\u00a0\u3000"))
def test_what_cannot_be_seen_says_nothing(text):
    assert is_blank(text) and plain_name(text) == "" and plain_name(f"{text}Jose\u0301{text}") == "Jos\u00e9"


@pytest.mark.parametrize("text", ["a", "\u200ba", "!", "\U0001f9e5", "\u0634\u062e\u0635", "\u0301"])
def test_what_can_be_seen_is_a_text(text):
    assert not is_blank(text)
