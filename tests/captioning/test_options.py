"""The options that captioning and rephrasing share: defaults, what they name, what they refuse."""

import argparse
from pathlib import Path

import pytest
import torch

from tvilfm_plugin.captioning.options import add_source_options, add_work_options, completed, print_failures, sources_of
from tvilfm_plugin.modality import Modality
from tvilfm_plugin.synthetic import Spec, make_synthetic


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_source_options(parser, split="train", why="for a reason")
    add_work_options(parser, what="captions")
    return completed(parser, parser.parse_args(words))


def test_options_name_the_images_of_a_data_set(tmp_path: Path) -> None:
    make_synthetic(Spec("sysu", ids=8, test_ids=4, images_rgb=4, images_ir=2, height=32), tmp_path / "people", progress=False)
    given = ["--dataset", "sysu", "--root", str(tmp_path), "--folder", "people", "--modality", "ir"]
    images = sources_of(parsed(given))
    assert images.modality is Modality.IR and len(images.sources) == 4 * 2
    assert {source.split for source in images.sources} == {"train"}
    assert len(sources_of(parsed([*given, "--split", "all"])).sources) > len(images.sources)


def test_device_and_precision_fit_each_other() -> None:
    given = ["--dataset", "sysu", "--modality", "rgb"]
    args = parsed(given)
    there = torch.cuda.is_available()
    assert (args.device, args.dtype) == (("cuda:0", "bfloat16") if there else ("cpu", "float32"))
    assert parsed([*given, "--device", "cuda:3"]).dtype == "bfloat16"
    assert parsed([*given, "--device", "cpu", "--dtype", "float16"]).dtype == "float16"


def test_shares_are_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    args = parsed(["--dataset", "sysu", "--modality", "rgb"])
    assert (args.rank, args.world_size) == (2, 3)


def test_restart_is_for_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["--dataset", "sysu", "--modality", "rgb", "--restart", "--world-size", "2"])
    assert "--restart moves rows that other processes may be writing: use it with one process." in capsys.readouterr().err


def test_long_lists_of_failures_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_failures({f"{n}.jpg": "broken" for n in range(5)}, "no caption", most=3)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"  no caption: {n}.jpg (broken)" for n in range(3)), "  ... and 2 more"]
    print_failures({}, "no caption")
    assert capsys.readouterr().out == ""
