"""Folders, lists, tables and CSV files."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tvilfm_plugin.retrieval.gallery_list import list_gallery
from tvilfm_plugin.retrieval.records import Record


def test_a_folder_is_all_its_images_in_order(tmp_path):
    for name in ("b/2.JPG", "a/1.png", "a/notes.txt", "0.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_gallery(tmp_path) == [Record(str(tmp_path / name)) for name in ("0.webp", "a/1.png", "b/2.JPG")]
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        list_gallery(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        list_gallery(str(tmp_path / "empty"))


def test_lists_and_records(tmp_path):
    record = Record("a.png", 3, 1, 2.5)
    assert list_gallery([record, tmp_path / "b.png", "c.png"]) == [record, Record(str(tmp_path / "b.png")), Record("c.png")]
    with pytest.raises(ValueError, match="names 'a.png' twice"):
        list_gallery(["a.png", "b.png", "a.png"])
    with pytest.raises(ValueError, match="names no image"):
        list_gallery([])
    for wrong in (5, ["a.png"], b"a.png", "", None):
        with pytest.raises(ValueError, match=r"Entry 1: path is .*, not the name of an image file"):
            list_gallery(["a.png", wrong])
    with pytest.raises(TypeError, match="not int"):
        list_gallery(3)


def test_tables():
    pandas = pytest.importorskip("pandas")
    moment = datetime(2024, 5, 1, 12, tzinfo=UTC)
    times = [pandas.Timestamp(moment), pandas.NaT, moment]
    table = pandas.DataFrame({"path": ["a", "b", "c"], "pid": [1, None, 3], "time": times})
    assert list_gallery(table) == [
        Record("a", 1, None, moment.timestamp()), Record("b"), Record("c", 3, None, moment.timestamp()),
    ]  # fmt: skip
    plain = pandas.DataFrame({"path": ["a", "b"], "camid": pandas.array([2, None], dtype="Int64"), "time": [1.5, math.nan]})
    assert list_gallery(plain) == [Record("a", None, 2, 1.5), Record("b")]
    for column, value, message in (
        ("pid", 1.5, "Row 0: pid is 1.5, not a whole number"),
        ("camid", "left", "Row 0: camid is 'left'"),
        ("time", "noon", "Row 0: time is 'noon', no number and no date"),
    ):
        with pytest.raises(ValueError, match=message):
            list_gallery(pandas.DataFrame({"path": ["a"], column: [value]}))
    with pytest.raises(ValueError, match="no column 'path', only file, pid"):
        list_gallery(pandas.DataFrame({"file": ["a"], "pid": [1]}))


def test_csv_files_are_relative_to_themselves(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("path,pid,camid,time,remark\nx/a.png,3,1,2.5,hello\nb.png,,,,\n")
    assert list_gallery(file) == [Record(str(tmp_path / "x/a.png"), 3, 1, 2.5), Record(str(tmp_path / "b.png"))]
    file.write_text("image\nb.png\n")
    with pytest.raises(ValueError, match="no column 'path', only image"):
        list_gallery(str(file))


def test_people_and_cameras_of_a_table_are_read_as_those_of_own_data(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("path,pid,camid\na.png,7.0,3.0\nb.png,7,5\nc.png,,\n")
    assert [one[1:3] for one in list_gallery(file)] == [(7, 3), (7, 5), (None, None)]
    file.write_text("path,pid,camid\na.png,anna,door\nb.png,\u200banna ,3\n", encoding="utf-8")
    a, b = list_gallery(file)
    assert a.pid == b.pid and (a.camid, b.camid) == (2, 1)
    for column, text in (("pid", "NaN"), ("camid", "none"), ("identity", "<NA>"), ("camera", "null")):
        file.write_text(f"path,{column}\na.png,1\nb.png,{text}\n")
        with pytest.raises(ValueError, match=f"line 3: (pid|camid) is '{text}', which says that there is none; leave it empty"):
            list_gallery(file)


def test_one_image_by_two_paths_is_named_twice(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(f"path\na.png\n{tmp_path / 'a.png'}\n")
    with pytest.raises(ValueError, match="twice; a path names one image"):
        list_gallery(file)


def test_distractors_are_nobody_and_junk_is_left_out(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("path,pid\na.png,distractor\nb.png,Distractor\nc.png,junk\nd.png,4\n")
    assert [(Path(one.path).name, one.pid) for one in list_gallery(file)] == [("a.png", None), ("b.png", None), ("d.png", 4)]
