"""Stored token ids: the same as tokenised ones, whatever the folder holds."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tvilfm_plugin.data import token_cache
from tvilfm_plugin.data.token_cache import stored_tokens
from tvilfm_plugin.data.tokenizer import TokenStore, tokenize

TEXTS = ["a red coat", "a blue coat &amp; hat", "a red coat", "naïve \ud800", ""]


@pytest.fixture
def no_tokenizer(monkeypatch):
    """Call it, and tokenising raises from then on."""

    def forbid():
        monkeypatch.setattr("tvilfm_plugin.data.tokenizer.tokenize", lambda texts: pytest.fail("tokenised again"))

    return forbid


def test_equals_tokenising_and_the_second_time_nothing_is_tokenised(tmp_path, no_tokenizer):
    texts = [text for text in TEXTS if "\ud800" not in text]
    expected = tokenize(texts)
    first = stored_tokens(texts, tmp_path / "new" / "folder")
    no_tokenizer()
    second = stored_tokens(texts, tmp_path / "new" / "folder")
    for store in (first, second):
        assert torch.equal(torch.stack([store[text] for text in texts]), expected) and len(store) == 3
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1


def test_other_texts_order_or_tokenizer_are_another_file(tmp_path, monkeypatch):
    for texts in (["a b", "c"], ["a", "b c"], ["c", "a b"], ["a b", "c", ""]):
        stored_tokens(texts, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    monkeypatch.setattr(token_cache, "TOKENIZER_VERSION", 2)
    stored_tokens(["a b", "c"], tmp_path)
    monkeypatch.setattr(token_cache, "version_of_software", lambda package: "0.0")
    stored_tokens(["a b", "c"], tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


def test_texts_that_are_no_utf8_have_a_fingerprint():
    assert token_cache._fingerprint(TEXTS) != token_cache._fingerprint(TEXTS[:3])


@pytest.mark.parametrize("damage", ["cut", "header", "shape", "dtype", "pickle"])
def test_a_damaged_file_is_written_anew(tmp_path, caplog, damage):
    stored_tokens(["a", "b"], tmp_path)
    (path,) = tmp_path.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "header":
        path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))
    else:
        other = {"shape": np.zeros((3, 77), np.uint16), "dtype": np.zeros((2, 77), np.int64)}
        np.save(path, other.get(damage, np.array([{}, {}])), allow_pickle=True)
    with caplog.at_level(logging.WARNING):
        store = stored_tokens(["a", "b"], tmp_path)
    assert "made again" in caplog.text and torch.equal(store["b"], tokenize(["b"])[0])
    assert (np.load(path) == store.ids).all() and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        store = stored_tokens(["a"], tmp_path / "file" / "folder")
    assert "tokenise anew" in caplog.text and torch.equal(store["a"], tokenize(["a"])[0])


def test_processes_that_begin_at_once_all_get_the_tokens(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tvilfm_plugin.data.token_cache import stored_tokens;"
        "texts = [f'word number {n}' for n in range(300)]; store = stored_tokens(texts, Path(sys.argv[1]));"
        "print(int(store.ids.astype(int).sum()))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    printed = {process.communicate(timeout=100)[0] for process in running}
    assert printed == {f"{int(tokenize([f'word number {n}' for n in range(300)]).sum())}\n"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_store_refuses_ids_of_other_texts():
    with pytest.raises(ValueError, match="2 distinct texts cannot have 3 rows"):
        TokenStore(["a", "b", "a"], np.zeros((3, 77), np.uint16))
