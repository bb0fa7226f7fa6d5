import json
import pickle

import numpy as np
import pytest

from tvilfm_plugin.data.captions import NOTHING, Caption, CaptionBank, array_captions


def strip(path: str) -> str:
    if "Visible/" not in path:
        raise ValueError(f"{path!r} is no image")
    return path[path.index("Visible/") :]


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_any_prefix_and_every_field(tmp_path):
    plain = write(
        tmp_path / "caption_dict.json",
        {"datasets/regdb/Visible/1/a.bmp": {"description": " a man "}, "/data0/x/Visible/1/b.bmp": "a woman"},
    )
    llm = write(
        tmp_path / "llm.json",
        {
            "D:/RegDB/Visible/1/a.bmp": {"description": "other", "aug_description": "A male"},
            "Visible/1/c.bmp": {"description": "a boy", "aug_description": ""},
        },
    )
    persons = write(tmp_path / "map.json", {"1": ["a man", "a boy"], "02": ["x"], "3": []})
    bank = CaptionBank.from_files(plain, llm, persons, strip)
    assert bank["Visible/1/a.bmp"] == Caption("a man", "A male")
    assert bank["Visible/1/b.bmp"] == Caption("a woman", "")
    assert bank["Visible/1/c.bmp"] == Caption("a boy", "")
    assert len(bank) == 3 and "Visible/1/d.bmp" not in bank
    assert [caption.text for caption in bank.of_person(1)] == ["a man", "a boy"]
    assert bank.of_person(2) == (Caption("x"),)
    assert pickle.loads(pickle.dumps(bank))["Visible/1/c.bmp"].text == "a boy"


def test_the_rephrase_file_alone_is_enough(tmp_path):
    llm = write(tmp_path / "llm.json", {"Visible/1/a.bmp": {"description": "a", "aug_description": "b"}})
    assert CaptionBank.from_files(None, llm, None, strip)["Visible/1/a.bmp"] == Caption("a", "b")


def test_empty_descriptions_are_no_captions(tmp_path):
    plain = write(tmp_path / "plain.json", {"Visible/1/a.bmp": {"description": "  "}})
    assert "Visible/1/a.bmp" not in CaptionBank.from_files(plain, None, None, strip)


def test_errors_name_file_fact_and_remedy(tmp_path):
    bank = CaptionBank({"Visible/1/a.bmp": Caption("x")}, "file.json", {4: [Caption("y")]}, "map.json")
    with pytest.raises(KeyError, match=r"Visible/2/a.bmp.*file.json \(1 captions\).*tvilfm data check"):
        bank["Visible/2/a.bmp"]
    with pytest.raises(KeyError, match="identity 9 in map.json"):
        bank.of_person(9)
    with pytest.raises(KeyError, match="none by person"):
        CaptionBank({}, "s").of_person(1)
    with pytest.raises(ValueError, match="No caption file"):
        CaptionBank.from_files(None, None, None, strip)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(ValueError, match="broken.json is no valid JSON"):
        CaptionBank.from_files(broken, None, None, strip)
    odd = write(tmp_path / "odd.json", {"elsewhere/a.bmp": {"description": "x"}})
    with pytest.raises(ValueError, match=r"odd.json: 'elsewhere/a.bmp' is no image"):
        CaptionBank.from_files(odd, None, None, strip)
    wrong = write(tmp_path / "wrong.json", {"Visible/1/a.bmp": {"caption": "x"}})
    with pytest.raises(ValueError, match="no 'description'"):
        CaptionBank.from_files(wrong, None, None, strip)
    persons = write(tmp_path / "persons.json", {"one": ["x"]})
    with pytest.raises(ValueError, match="identity number -> list"):
        CaptionBank.from_files(None, None, persons, strip)


def test_a_bank_is_completed_field_by_field():
    own = CaptionBank({"a": Caption("text"), "b": Caption("t", "r")}, "own")
    other = CaptionBank({"a": Caption("other", "rephrase"), "c": Caption("c")}, "other", {1: [Caption("p")]})
    merged = own.completed_by(other)
    assert merged["a"] == Caption("text", "rephrase") and merged["b"] == Caption("t", "r") and merged["c"].text == "c"
    assert merged.of_person(1)[0].text == "p"


BY_IDENTITY = ["cam1/0001/a", "cam2/0001/b", "cam1/0002/c", "cam2/0002/d"]


def arrays(tmp_path, order, labels):
    np.save(tmp_path / "text.npy", np.array([f"text of {path}" for path in order]))
    np.save(tmp_path / "llm.npy", np.array([f"rephrase of {path}" for path in order]))
    np.save(tmp_path / "label.npy", np.array(labels))
    return [BY_IDENTITY, sorted(BY_IDENTITY)], lambda path: int(path.split("/")[1]), tmp_path / "text.npy"


@pytest.mark.parametrize("by_path", [False, True])
def test_arrays_find_their_order_by_their_labels(tmp_path, by_path):
    order, labels = (sorted(BY_IDENTITY), [0, 1, 0, 1]) if by_path else (BY_IDENTITY, [5, 5, 9, 9])
    args = arrays(tmp_path, order, labels)
    bank = array_captions(*args, tmp_path / "llm.npy", tmp_path / "label.npy")
    assert all(bank[path] == Caption(f"text of {path}", f"rephrase of {path}") for path in BY_IDENTITY)


def test_texts_of_arrays_that_say_that_there_is_none_are_counted(tmp_path):
    orders, pids, text_file = arrays(tmp_path, BY_IDENTITY, range(len(BY_IDENTITY)))
    texts = np.load(text_file)
    texts[1] = "nan"
    np.save(text_file, texts)
    bank = array_captions(orders, pids, text_file)
    assert BY_IDENTITY[1] not in bank and dict(bank.left_out) == {(str(text_file), NOTHING): 1}


def test_arrays_that_contradict_what_is_known_by_name_are_refused(tmp_path):
    args = arrays(tmp_path, BY_IDENTITY, [0, 0, 1, 1])
    known = CaptionBank({"cam1/0001/a": Caption("something else")}, "known.json")
    with pytest.raises(ValueError, match=r"none of the 2 known orders.*known.json"):
        array_captions(*args, known=known)
    assert array_captions(*args)["cam1/0001/a"].text == "text of cam1/0001/a"


def test_arrays_of_another_length_or_kind_are_refused(tmp_path):
    orders, pids, file = arrays(tmp_path, BY_IDENTITY, [0, 0, 1, 1])
    with pytest.raises(ValueError, match="has 4 entries, but the training split has 3 images"):
        array_captions([orders[0][:3]], pids, file)
    np.save(tmp_path / "objects.npy", np.array(["a", None, "b", "c"], dtype=object))
    with pytest.raises(ValueError, match="objects.npy is damaged, or holds Python objects, which are never loaded"):
        array_captions(orders, pids, tmp_path / "objects.npy")
    for content in (b"", b"hello", pickle.dumps([1]), file.read_bytes()[:70], file.read_bytes()[:-3]):
        (tmp_path / "broken.npy").write_bytes(content)
        with pytest.raises(ValueError, match="broken.npy is (no array that numpy.save wrote|damaged)"):
            array_captions(orders, pids, tmp_path / "broken.npy")
    np.save(tmp_path / "numbers.npy", np.arange(4))
    with pytest.raises(ValueError, match="plain unicode"):
        array_captions(orders, pids, tmp_path / "numbers.npy")
