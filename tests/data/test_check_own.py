"""The check of own data: every problem by row, and nothing to say about data that is right."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_own_data import KINDS, change
from tiny_trees import write_own

from tvilfm_plugin.data.datasets.check_own import check_own
from tvilfm_plugin.data.datasets.own import OWN
from tvilfm_plugin.evaluation.protocols import LLCM, REGDB

TOOL = Path(__file__).parents[2] / "tools" / "check_dataset.py"


@pytest.mark.parametrize("kind", [kind.key for kind in KINDS])
def test_good_data_and_its_counts(tmp_path, kind):
    write_own(tmp_path)
    report = check_own(kind, str(tmp_path), decode=True)
    assert report.ok and not report.notes, report.to_text()
    counts = report.counts
    train = [counts["train", what] for what in ("ids", "RGB", "IR", "RGB texts", "IR texts", "rephrases")]
    assert train == [3, 12, 6, 12, 6, 18] and counts["total", "texts"] == 36
    assert [counts["test", what] for what in ("ids", "RGB", "IR", "gallery")] == [3, 12, 6, 6]
    assert "OK: complete" in report.to_text() and "published" not in report.to_text()


def test_every_problem_by_row(tmp_path):
    base = write_own(tmp_path)
    (base / "test/visible/6/1/0.jpg").unlink()
    broken = base / "test/visible/6/1/1.jpg"
    broken.write_bytes(broken.read_bytes()[:100])

    def spoil(row):
        return row | {
            "train/visible/1/1/0.jpg": {"path": "train/visible/1/1/1.jpg", "identity": "4"},
            "train/visible/1/2/0.jpg": {"path": "notes.txt"},
            "train/visible/4/1/0.jpg": {"caption": "", "rephrase": ""},
            "train/visible/4/1/1.jpg": {"rephrase": ""},
            "train/visible/4/2/0.jpg": {"caption": "word " * 90},
            "train/infrared/1/3/0.jpg": {"identity": "01"},
            "test/infrared/25/3/0.jpg": {"split": "train"},
            "test/infrared/bert/3/0.jpg": {"camera": "1"},
            "test/infrared/bert/3/1.jpg": {"identity": "nobody"},
            "test/visible/bert/2/0.jpg": {"camera": "1"},
            "test/visible/bert/2/1.jpg": {"camera": "1"},
        }.get(row["path"], {})

    change(base, spoil)
    report = check_own("table", str(tmp_path), decode=True)
    assert report.rows == [
        "line 3: train/visible/1/1/1.jpg stands in line 2 already, there with another identity.",
        "line 4: notes.txt is no image; names end in .jpg, .jpeg, .png, .bmp, .tif, .tiff, .webp.",
        "line 6: identity '01' counts as '1' of line 3; if they are two people, rename one.",
        "identity '25' is in test (line 32), train (line 36): nobody may be in two splits.",
        "line 30: by the rules LLCM this query ignores every image of 'bert' (camera 1). Give infrared and visible cameras "
        "different names, or choose other rules (DATASETS.RULES).",
        "line 8: train/visible/4/1/0.jpg has no caption.",
    ]
    assert sorted(Path(path).name for path in report.missing) == ["0.jpg", "notes.txt"]
    assert len(report.broken) == 1 and report.broken[0].startswith(str(broken))
    notes = " ".join(report.notes)
    assert "1 visible captions fill or exceed 77 tokens and are cut there (line 10)" in notes
    assert "1 of 22 visible captions have no rephrase" in notes
    assert "2 train identities have no visible image (01, 25): they form no pair" in notes
    assert "1 test identities have no visible image (nobody), so not a gallery image of theirs" in notes
    text = report.to_text(limit=2)
    assert "6 problems in rows:" in text and "... and 4 more" in text and text.endswith("NOT OK")
    assert "line 30" not in " ".join(check_own("table", str(tmp_path), rules=REGDB).rows)
    assert LLCM.name in " ".join(check_own("table", str(tmp_path)).rows)


def test_rows_that_cannot_be_understood_come_first(tmp_path):
    base = write_own(tmp_path)
    change(base, lambda row: row | {"split": "later"} if row["identity"] == "4" else row)
    report = check_own("table", str(tmp_path))
    assert len(report.rows) == 6 and report.rows[0].startswith("line 8: split 'later' is none of train, val, test")
    assert "captions are looked at when every row can be understood." in report.notes


def test_problems_of_the_whole(tmp_path):
    assert "no folder own" in check_own("table", str(tmp_path)).problems[0]
    base = write_own(tmp_path, train_ids=("1",), captions=False)
    problems = check_own("table", str(tmp_path)).problems
    assert "Split train has fewer than two identities with visible and infrared images (1 identities in all)" in problems[0]
    assert problems[1].startswith("No visible image has a caption. Fill the column 'caption', generate captions")
    assert problems[2].startswith("No infrared image has a caption.")
    assert len(check_own("folder", str(tmp_path), text=False).problems) == 1
    (base / "table.jsonl").touch()
    assert "keep one of them" in check_own("table", str(tmp_path)).problems[0]


def test_the_command_for_own_data(tmp_path, capsys):
    write_own(tmp_path, captions=False)
    main = runpy.run_path(str(TOOL))["main"]
    assert main(["table", "--root", str(tmp_path)]) == 1
    assert "No visible image has a caption" in capsys.readouterr().out
    words = ["folder", "--root", str(tmp_path), "--no-text", "--rules", "RegDB", "--out", str(tmp_path / "report.txt")]
    assert main(words) == 1
    assert "Training could not start: A batch needs 8 identities" in capsys.readouterr().out
    assert main([*words, "SOLVER.IMS_PER_BATCH", "12"]) == 0
    assert "OK: complete" in capsys.readouterr().out and "Own folder" in (tmp_path / "report.txt").read_text()


def test_texts_that_are_no_english_captions(tmp_path):
    base = write_own(tmp_path)
    said = {
        "train/visible/1/1/0.jpg": "nan",
        "train/visible/1/1/1.jpg": "一个穿红衣服的人",
        "train/visible/1/2/0.jpg": "a café-brown coat",
    }
    change(base, lambda row: row | {"caption": said[row["path"]]} if row["path"] in said else row)
    nothing = "line 2: caption is 'nan', which says that there is none; leave it empty."
    assert check_own("table", str(tmp_path)).rows == [nothing]
    with pytest.raises(ValueError, match=re.escape(nothing[:30])):
        OWN["table"](root=str(tmp_path), text=True, verbose=False)
    change(base, lambda row: row | {"caption": row["caption"].replace("nan", "a coat")})
    report = check_own("table", str(tmp_path))
    assert report.rows == []
    assert "1 visible captions are in another script (line 3); CLIP's vocabulary is English." in report.notes


def test_infrared_counts_get_a_suggestion(tmp_path):
    base = write_own(tmp_path)
    for path in sorted(base.glob("*/infrared/*/*/*.jpg")):
        counts = np.linspace(20000, 28000, 48 * 24).reshape(48, 24).astype(np.uint16)
        Image.fromarray(counts).save(path, "PNG")
    report = check_own("table", str(tmp_path), decode=True)
    assert len(report.broken) == 12 and "more than 8 bits" in report.broken[0]
    assert 'INPUT.IR_SCALING "(20076, 27923)" in training, evaluation and search' in " ".join(report.notes)
