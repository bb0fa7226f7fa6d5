"""Tables by property: separator, quoting, case, order of columns, encoding and format change nothing of what is read."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvilfm_plugin.data.image_table import camera_numbers, identity_number, read_table
from tvilfm_plugin.files.tables import Table
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.retrieval.gallery_list import list_gallery
from tvilfm_plugin.retrieval.records import Record

COLUMNS = ["path", "identity", "camera", "modality", "split", "caption"]
NAMES = st.one_of(st.integers(1, 999).map(str), st.sampled_from(["anna", "Bérénice", "行人", "a b", "x-1"]))
SAID = st.text(st.sampled_from('abc ,;\t"\n éß红!'), max_size=10)
ROW = st.tuples(NAMES, NAMES, st.sampled_from(["visible", "RGB", "ir", "Thermal"]), st.sampled_from(["train", "Test"]), SAID)


def records(rows):
    return [
        dict(zip(COLUMNS, (f"f/{n}.jpg", *row), strict=True)) for n, row in enumerate(rows)
    ]  # fmt: skip


def as_csv(rows, columns, separator, quoting, blank):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, quoting=quoting)
    writer.writerow([blank + name if n else name for n, name in enumerate(columns)])
    writer.writerows(
        [
            [
                blank + row[name.strip().lower()]
                if n and blank and not set(row[name.strip().lower()]) & set('"\n,;\t')
                else row[name.strip().lower()]
                for n, name in enumerate(columns)
            ]
            for row in rows
        ]
    )
    return out.getvalue()


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=5),
    columns=st.permutations(COLUMNS),
    upper=st.booleans(),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    blank=st.sampled_from(["", " "]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_how_a_table_is_written_does_not_matter(tmp_path_factory, rows, columns, upper, separator, quoting, blank, encoding):
    folder = tmp_path_factory.getbasetemp()
    rows = records(rows)
    names = [name.upper() for name in columns] if upper else columns
    blank = "" if quoting == csv.QUOTE_ALL else blank
    (folder / "table.csv").write_bytes(as_csv(rows, names, separator, quoting, blank).encode(encoding))
    (folder / "table.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    one, two = read_table(folder / "table.csv"), read_table(folder / "table.jsonl")
    assert one.problems == two.problems == []
    assert [row[1:] for row in one.rows] == [row[1:] for row in two.rows]
    assert [row.identity for row in one.rows] == [row["identity"] for row in rows]
    assert [row.caption for row in one.rows] == [" ".join(row["caption"].split()) for row in rows]
    cameras = camera_numbers([row.camera for row in one.rows])
    wanted = [row for row in one.rows if row.modality is Modality.RGB and row.split == "test"]
    if not wanted:
        with pytest.raises(ValueError, match="none of them is a visible test image"):
            list_gallery(folder / "table.csv")
        return
    gallery = [Record(str(folder / row.path), identity_number(row.identity), cameras[row.camera]) for row in wanted]
    assert list_gallery(folder / "table.csv") == list_gallery(folder / "table.jsonl") == gallery


def test_lists_of_a_gallery(tmp_path):
    file = tmp_path / "g.csv"
    file.write_text("Path; PID ;CamID;Time\nx\\a.png; anna;door;2024-05-01T12:00\nb.png;;hall;\n")
    assert list_gallery(file) == [
        Record(str(tmp_path / "x/a.png"), identity_number("anna"), 1, 1714564800.0), Record(str(tmp_path / "b.png"), None, 2),
    ]  # fmt: skip
    file.write_text("path,identity,modality\na.png,3,visible\nb.png,3,ir\n")
    assert list_gallery(file) == [Record(str(tmp_path / "a.png"), 3)]
    for content, said in (
        ("path,PATH\na,b\n", "column 'path' stands there twice"),
        ("path,pid\na,1.5\n", "line 2: pid is '1.5', not a whole number"),
        ("path,pid\n,1\n", "line 2: path is '', not the name"),
        ("path,time\na,noon\n", "line 2: time is 'noon', no number and no date"),
        ("path,modality\na,sepia\n", "modality 'sepia' is none of"),
        ('path,pid\n"a,1\n', "line 2: unexpected end of data"),
        ("path,pid\na\n", "line 2: 1 fields instead of 2"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=said):
            list_gallery(file)
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"path": ["a.png"], "pid": [4], "camid": [None]}).to_parquet(tmp_path / "g.parquet")
    assert list_gallery(tmp_path / "g.parquet") == [Record(str(tmp_path / "a.png"), 4)]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(ValueError, match=r"bad.parquet is no Parquet file"):
        list_gallery(tmp_path / "bad.parquet")


def test_distractors_and_junk(tmp_path):
    lines = ["path,identity,modality,split", "a.jpg,1,visible,test", "b.jpg,1,ir,test"]
    lines += ["c.jpg,0000,visible,test", "d.jpg,0000,rgb,test", "e.jpg,Distractor,visible,test", "f.jpg,-1,visible,test"]
    (tmp_path / "table.csv").write_text("\n".join([*lines, "g.jpg,junk,ir,train"]))
    table = read_table(tmp_path / "table.csv")
    assert not table.problems and (table.distractors, table.junk) == (3, 2)
    assert len({row.identity for row in table.rows}) == 4 and "3 visible test images are distractors" in table.notes[0]
    assert [record.pid for record in list_gallery(tmp_path / "table.csv")] == [1, None, None, None]
    # Somebody whom a query shows is a person, whatever the label.
    (tmp_path / "table.csv").write_text("\n".join([*lines, "g.jpg,0000,ir,test", "h.jpg,distractor,ir,test"]))
    table = read_table(tmp_path / "table.csv")
    assert table.distractors == 1 and [row.path for row in table.rows if row.identity == "0000"] == ["c.jpg", "d.jpg", "g.jpg"]
    assert table.problems == [
        "line 9: a distractor is a visible test image, this one is test, ir; name the person, or write 'junk' to leave the "
        "image out."
    ]


def test_json_lines_with_repeated_keys(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"path": "a", "Path": "b"}\n{"path": "c", "x": {"y": 1}}\n')
    table = Table(tmp_path / "a.jsonl", ("path",), ())
    assert list(table) == [("line 2", {"path": "c", "x": {"y": 1}})]
    assert table.problems == ["line 1: column 'path' stands there twice; keep one of them."]
