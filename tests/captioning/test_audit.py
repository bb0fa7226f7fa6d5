"""The audit against hand-made texts, its report, and its exit status."""

import json
from pathlib import Path

import pytest
from run_scripts import load_tool
from tiny_trees import write_sysu

from tvilfm_plugin.captioning.audit import audit_text, count_tokens
from tvilfm_plugin.captioning.dataset_audit import audit_dataset
from tvilfm_plugin.captioning.findings import Subject
from tvilfm_plugin.data.captions import Caption
from tvilfm_plugin.data.tokenizer import tokenize
from tvilfm_plugin.description.lexicon import garment_colours, garments_in
from tvilfm_plugin.modality import Modality


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a man with short black hair wearing a red and white t - shirt, dark blue jeans.",
         {"hair": {"black"}, "top": {"red", "white"}, "trousers": {"blue"}}),
        ("a red bag and shoes", {"bag": {"red"}}),
        ("a grey colour full sleeve round neck sweater with a hat", {"sweater": {"grey"}}),
        ("he is covered in a tan coat on top of gray pants", {"jacket": {"brown"}, "trousers": {"grey"}}),
        ("a person", {}),
    ],
)  # fmt: skip
def test_colours_of_garments(text: str, expected: dict[str, set[str]]) -> None:
    assert garment_colours(text) == expected


def test_garments_and_colours_are_words_of_their_own() -> None:
    assert garments_in("a tied bun, trenchcoated, at the hatch, on top of a rucksack") == {"hair", "bag"}
    assert garment_colours("a tanned man in a covered dark top and navy-blue trousers") == {"trousers": {"blue"}}


def test_findings() -> None:
    texts = {
        "a/1": ("a man in a red shirt and blue jeans", 1, True),
        "a/2": ("a man in a green shirt and blue jeans", 1, True),
        "b/1": ("a man in a black and white shirt and a skirt", 2, True),
        "b/2": ("a man in a white shirt and shorts", 2, True),
        "c/1": ("a man in a red coat", 3, False),
        "c/2": ("a man in a blue coat", 3, False),
        "d/1": ("a man in a blue coat", 4, False),
    }
    captions = {key: Caption(text, "A male in a red coat." if key == "c/1" else "") for key, (text, _, _) in texts.items()}
    captions["c/2"] = Caption("a man in a blue coat", "A male in a yellow coat.")
    subjects = [Subject(key, pid, train, gallery=key == "c/2") for key, (_, pid, train) in texts.items()]
    subjects.append(Subject("e/1", 5, True))
    queries = {3: ["a man in a blue coat", "a man in a red coat"], 4: ["a man in a blue coat"]}
    audit = audit_text(subjects, captions, Modality.RGB, query_texts=queries)
    counted = {found.key: (found.count, found.of) for found in audit.findings}
    assert counted["without_caption"] == (1, 8)
    assert counted["distinct"] == (6, 7)
    # Person 2's shirts share a colour; person 3, of the test split, is not looked at.
    assert counted["colour_contradictions"] == (1, 2)
    assert counted["garment_contradictions"] == (1, 2)
    assert counted["shared"] == (1, 6)
    assert counted["drift"] == (1, 2)
    assert counted["query_text_in_gallery"] == (2, 3)
    assert counted["truncated_captions"] == (0, 7)
    assert "colour_in_caption" not in counted
    infrared = audit_text(subjects, captions, Modality.IR)
    assert infrared.finding("colour_in_caption").count == 7 and infrared.finding("colour_in_rephrase").count == 2


def test_attributes_are_counted_and_compared() -> None:
    same = "A male in a red shirt."
    pairs = {
        "a/1": ("a man with short hair in a red shirt", "A man with short hair in a shirt that is red."),
        "a/2": ("a woman with long hair in a red shirt", "A woman in a red shirt."),
        "a/3": ("a man in a red shirt", "a man, in a red shirt"),
        "a/4": ("a man named Joe in a half-sleeved shirt", "A woman in a short-sleeved shirt."),
        "a/5": ("a man in a long-sleeved shirt and a frobnicator", "мужчина"),
    }
    captions = {key: Caption(*texts) for key, texts in pairs.items()}
    subjects = [Subject(key, 1, True, camera="1" if key < "a/3" else "2") for key in pairs]
    audit = audit_text(subjects, captions, Modality.RGB)
    counted = {found.key: found.count for found in audit.findings}
    assert counted["sex_contradictions"] == counted["hair_contradictions"] == counted["sleeve_contradictions"] == 1
    assert counted["rephrases_lost"] == counted["rephrases_copied"] == counted["rephrases_person"] == 1
    assert counted["rephrases_script"] == 1 and counted["drift"] == 4
    assert counted["named"] == 1 and counted["unread"] == 1 and counted["foreign_script"] == 0
    assert "hat" in audit.finding("never_said").examples and "sex 100.0%" in audit.finding("never_said").examples[0]
    assert audit.cameras["1"] == {"captions": 2, "attributes": 4.0, "unread": 0.0, "drift": 0.5}
    assert audit_text(subjects[:1], {"a/1": Caption("a man in a red shirt", same)}, Modality.RGB).finding("drift").count == 0


def test_tokens_are_clips() -> None:
    texts = ["a man in a t - shirt.", "a woman with a ponytail, wearing " + "very " * 90 + "long boots"]
    counted = count_tokens(texts)
    assert counted[0] == int((tokenize(texts[:1]) != 0).sum())
    assert counted[1] > 77 and int((tokenize(texts[1:]) != 0).sum()) == 77


def test_a_data_set_on_disk_and_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sysu(tmp_path)
    audits = audit_dataset("sysu", str(tmp_path))
    assert [audit.modality for audit in audits] == [Modality.RGB, Modality.IR]
    overlap = audits[0].finding("query_text_in_gallery")
    assert 0 < overlap.count <= overlap.of
    options = ["--dataset", "sysu", "--root", str(tmp_path), "--out", str(tmp_path / "report")]
    tool = load_tool("audit_captions")
    assert tool.main(options) == 0
    report = json.loads((tmp_path / "report/audit.json").read_text())
    assert report["text"][1]["findings"]["colour_in_caption"]["count"] == 0
    assert (tmp_path / "report/lengths.png").stat().st_size > 3000
    assert "## IR" in (tmp_path / "report/audit.md").read_text()
    assert tool.main([*options, "--fail-on", "query_text_in_gallery=0"]) == 1
    assert "TOO MUCH: rgb: query_text_in_gallery" in capsys.readouterr().out
    # One colour in an infrared caption is one too many.
    file = tmp_path / "SYSU-MM01/Text/Blip_IR/caption_dict_Blip_IR.json"
    content = json.loads(file.read_text())
    content[next(iter(content))]["description"] = "a person in a crimson shirt"
    file.write_text(json.dumps(content))
    assert tool.main(options) == 1
    text_only = ["--dataset", "sysu", "--text", str(file.parents[1]), "--train-ids", "1,4", "--out", str(tmp_path / "r2")]
    assert tool.main(text_only) == 1
