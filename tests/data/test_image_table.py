"""Tables and folders of own data: what is read, and what is said of what cannot be."""

import csv
import json
import sys
from pathlib import Path

import pytest

from tvilfm_plugin.data.image_table import (
    ImageTable,
    camera_numbers,
    find_table,
    identity_number,
    read_captions,
    read_table,
    scan_folder,
)
from tvilfm_plugin.modality import Modality

COLUMNS = ["path", "identity", "camera", "modality", "split", "caption", "rephrase"]
ROWS = [
    ["train/a.jpg", "7", "2", "visible", "train", 'a "red" coat, long', "a coat that is red"],
    ["train\\b.jpg", "7", "", "Thermal", "TRAIN", "a coat", ""],
    ["./test/c.jpg", "anna", "door", "ir", "test", "", ""],
]


def write_csv(file: Path, rows, columns=COLUMNS, delimiter=",") -> Path:
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)
    return file


def plain(table: ImageTable) -> list[tuple]:
    return [row[1:] for row in table.rows]


EXPECTED = [
    ("train/a.jpg", "7", "2", Modality.RGB, "train", 'a "red" coat, long', "a coat that is red"),
    ("train/b.jpg", "7", "2", Modality.IR, "train", "a coat", ""),
    ("test/c.jpg", "anna", "door", Modality.IR, "test", "", ""),
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(tmp_path, delimiter):
    table = read_table(write_csv(tmp_path / "table.csv", ROWS, delimiter=delimiter))
    assert plain(table) == EXPECTED and not table.problems and not table.notes
    assert [row.where for row in table.rows] == ["line 2", "line 3", "line 4"]
    marked = tmp_path / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + (tmp_path / "table.csv").read_bytes().replace(b"path", b" PATH", 1))
    assert plain(read_table(marked)) == EXPECTED


def test_json_lines_and_parquet_say_the_same(tmp_path):
    records = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    records[0] |= {"identity": 7, "camera": 2.0}
    records[1] |= {"camera": None}
    del records[2]["caption"]
    lines = tmp_path / "table.jsonl"
    lines.write_text("\n\n".join(json.dumps(record) for record in records), encoding="utf-8")
    assert plain(read_table(lines)) == EXPECTED
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame([dict(zip(COLUMNS, row, strict=True)) for row in ROWS]).replace("", None)
    frame.to_parquet(tmp_path / "table.parquet")
    parquet = read_table(tmp_path / "table.parquet")
    assert plain(parquet) == EXPECTED and [row.where for row in parquet.rows] == ["row 1", "row 2", "row 3"]


def test_every_problem_is_found_in_one_go(tmp_path):
    table = read_table(
        write_csv(
            tmp_path / "table.csv",
            [
                ["", "", "1", "visible", "train", "", ""],
                ["a.jpg", "1", "1", "sepia", "query", "", ""],
                ["b.jpg", "1", "1", "ir", "test", "a coat", "unquoted", "surplus"],
                ["c.jpg", "1"],
                ["d.jpg", "1", "1", "ir", "test", "a coat", ""],
            ],
            [*COLUMNS[:5], "captoin", "rephrase"],
        )
    )
    assert table.problems == [
        "line 2: path is empty.",
        "line 2: identity is empty.",
        "line 3: modality 'sepia' is none of rgb, vis, visible, ir, nir, infrared, thermal.",
        "line 3: split 'query' is none of train, val, test.",
        "line 4: 8 fields instead of 7; a text with a comma needs quotation marks.",
        "line 5: 2 fields instead of 7; a text with a comma needs quotation marks.",
    ]
    assert table.notes == ["column 'captoin' of table.csv is not used; did you mean 'caption'?"]
    assert [row.path for row in table.rows] == ["d.jpg"]


def test_problems_of_json_lines(tmp_path):
    file = tmp_path / "table.jsonl"
    good = {"path": "a.jpg", "identity": 1, "modality": "ir", "split": "test"}
    records = [good | {"identity": 1.5}, good | {"camera": True}, good]
    file.write_text("\n".join(["{", "[1]", *map(json.dumps, records)]))
    table = read_table(file)
    assert len(table.rows) == 1 and table.problems == [
        "line 1: no valid JSON (Expecting property name enclosed in double quotes, column 1).",
        "line 2: a list instead of an object {...}.",
        "line 3: identity is 1.5, expected a text or a whole number.",
        "line 4: camera is True, expected a text or a whole number.",
    ]


def test_problems_of_a_whole_file(tmp_path):
    def problems(name: str, content: bytes) -> list[str]:
        (tmp_path / name).write_bytes(content)
        return read_table(tmp_path / name).problems

    assert problems("a.csv", b"path,person\nx.jpg,1\n") == ["a.csv has no column identity, modality, split; found person."]
    assert problems("b.csv", b"") == [
        "b.csv has no rows; expected the columns path, identity, modality, split, camera, caption, rephrase."
    ]
    assert problems("c.csv", b"path,identity,modality,split\n\xe4.jpg,1,ir,test\n")[0] == (
        "c.csv is not UTF-8 (byte 29): save it again as UTF-8."
    )
    (unclosed,) = problems("d.csv", b'path,identity,modality,split\na.jpg,1,ir,test\nb.jpg,"1,ir,test\n')
    assert "line 3: unexpected end of data; what follows was not read" in unclosed
    with pytest.raises(ValueError, match=r"no table: expected a name that ends in .csv, .jsonl, .parquet"):
        read_table(tmp_path / "e.xlsx")


def test_parquet_without_its_packages(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas pyarrow. CSV and JSON lines need neither"):
        read_table(tmp_path / "table.parquet")


def test_one_table_per_folder(tmp_path):
    assert find_table(tmp_path) is None
    (tmp_path / "table.csv").touch()
    assert find_table(tmp_path) == tmp_path / "table.csv"
    (tmp_path / "table.jsonl").touch()
    with pytest.raises(ValueError, match=r"has table.csv and table.jsonl; keep one"):
        find_table(tmp_path)


def test_folders_tell_the_rows(tmp_path):
    for name in (
        "train/visible/0007/cam2/a.jpg", "train/ir/0007/b.PNG", "test/nir/anna/door/c.jpg", "test/rgb/anna/.hidden.jpg",
        "test/rgb/anna/notes.txt", "elsewhere/x.jpg", "train/visible/loose.jpg", "train/sepia/0007/d.jpg",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    captions = [["train/visible/0007/cam2/a.jpg", "a coat", ""], ["gone.jpg", "x", ""], ["gone.jpg", "y", ""]]
    write_csv(tmp_path / "captions.csv", captions, ["path", "caption", "rephrase"])
    table = scan_folder(tmp_path)
    assert sorted(plain(table)) == [
        ("test/nir/anna/door/c.jpg", "anna", "door", Modality.IR, "test", "", ""),
        ("train/ir/0007/b.PNG", "0007", "2", Modality.IR, "train", "", ""),
        ("train/visible/0007/cam2/a.jpg", "0007", "cam2", Modality.RGB, "train", "a coat", ""),
    ]
    assert table.problems == [
        "line 4: gone.jpg was captioned before, in line 3.",
        "train/sepia/0007/d.jpg: modality 'sepia' is none of rgb, vis, visible, ir, nir, infrared, thermal.",
        "train/visible/loose.jpg: expected split/modality/identity/image or split/modality/identity/camera/image, e.g. "
        "train/visible/0001/cam1/0001.jpg.",
        "captions.csv, line 3: there is no image 'gone.jpg'.",
    ]
    (tmp_path / "empty").mkdir()
    assert "has no image in train, val, test" in scan_folder(tmp_path / "empty").problems[0]


def test_a_caption_file_needs_its_columns(tmp_path):
    table = ImageTable("here")
    write_csv(tmp_path / "captions.csv", [["a.jpg"]], ["path"])
    assert read_captions(tmp_path / "captions.csv", table) == {}
    assert table.problems == ["captions.csv has no column caption; found no other."]


def test_numbers_for_people_and_cameras():
    assert identity_number("0012") == 12 and identity_number("anna") == identity_number("anna") != identity_number("ann")
    # More digits than 64 bits hold, and digits of another script, are names.
    assert all(0 <= identity_number(name) < 2**48 for name in ("anna", "1" * 20, "\u0663"))
    assert camera_numbers(["3", "1", "3"]) == {"1": 1, "3": 3}
    assert camera_numbers(["door", "2", "10"]) == {"10": 1, "2": 2, "door": 3}


HEAD = "path,identity,modality,split,camera,caption\n"


@pytest.mark.parametrize(
    "name", ["7.0", "7.00", "\u200b7", "7\ufeff", " 7 "], ids=["pandas", "pandas 2", "zero width", "mark", "blanks"]
)
def test_one_person_in_several_spellings_is_one(tmp_path, name):
    (tmp_path / "a.csv").write_text(f"{HEAD}a.jpg,{name},rgb,test,{name},\u200b\nb.jpg,7,ir,test,7,x\n", encoding="utf-8")
    table = read_table(tmp_path / "a.csv")
    assert not table.problems and [(row.identity, row.camera) for row in table.rows] == [("7", "7")] * 2
    assert [row.caption for row in table.rows] == ["", "x"]


def test_a_composed_and_a_decomposed_name_are_one_person(tmp_path):
    """macOS writes file names decomposed."""
    for modality, name in (("visible", "Jose\u0301"), ("infrared", "Jos\u00e9")):
        folder = tmp_path / "train" / modality / name
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"")
    assert {row.identity for row in scan_folder(tmp_path).rows} == {"Jos\u00e9"}


def test_what_programs_write_for_nothing_is_nobody(tmp_path):
    (tmp_path / "a.csv").write_text(f"{HEAD}a.jpg,nan,rgb,test,1,\nb.jpg,1,rgb,test,None,\nc.jpg,2,rgb,test,1,\n")
    table = read_table(tmp_path / "a.csv")
    said = [problem.partition(",")[0] for problem in table.problems]
    assert said == ["line 2: identity is 'nan'", "line 3: camera is 'None'"]
    assert [row.identity for row in table.rows] == ["2"]


def test_alike_names_are_said(tmp_path):
    rows = "b.jpg,Anna,rgb,test,1,\nc.jpg,anna,rgb,test,1,\nb.jpg,Anna,rgb,test,1,\n"
    (tmp_path / "a.csv").write_text(HEAD + rows)
    table = read_table(tmp_path / "a.csv")
    assert not table.problems and len(table.rows) == 3
    assert table.notes == ["identities that differ in upper case alone count as different people: Anna and anna."]


def test_a_line_of_excels_own_is_no_header(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\n" + HEAD.replace(",", ";") + "a.jpg;1;rgb;test;1;\n")
    table = read_table(tmp_path / "a.csv")
    assert len(table.rows) == 1 and not table.problems


def test_paths_from_the_root_are_those_of_the_table(tmp_path):
    (tmp_path / "Table.CSV").write_text(HEAD + f"{tmp_path}/x/b.jpg,1,rgb,test,1,\n/elsewhere/c.jpg,1,rgb,test,1,\n,,,,,\n")
    table = read_table(find_table(tmp_path))
    assert not table.problems and [row.path for row in table.rows] == ["x/b.jpg", "/elsewhere/c.jpg"]
    (tmp_path / "captions.csv").write_text(f"path,caption\n{tmp_path}/x/b.jpg,a man\n")
    assert read_captions(tmp_path / "captions.csv", table)["x/b.jpg"][1] == "a man"


def test_an_index_of_pandas_is_a_column(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = {"path": ["a.jpg"], "identity": [1], "modality": ["rgb"], "split": ["test"]}
    pandas.DataFrame(rows).set_index("path").to_parquet(tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet")
    assert not table.problems and not table.notes and table.rows[0].path == "a.jpg"


def test_a_parquet_file_whose_texts_are_damaged_is_refused_in_a_sentence(tmp_path):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    file = tmp_path / "table.parquet"
    pandas.DataFrame({"path": ["ZZZZZZZZ.png"] * 2, "identity": [1, 2]}).to_parquet(file, compression=None)
    file.write_bytes(file.read_bytes().replace(b"ZZZZZZZZ", b"\xff" * 8))
    assert any("table.parquet is no Parquet file or is damaged (" in problem for problem in read_table(file).problems)
