"""Weight files: what is read, and the one sentence that refuses what is not."""

import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tvilfm_plugin.files.weights import (
    WeightsError,
    best_prefix,
    prefixes_of,
    read_tensors,
    read_weights_file,
    tensors_of,
)

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.zeros(2)}


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {}, "args": argparse.Namespace(lr=1)},
        lambda s: {"model_state": s, "best": np.float64(0.5)},
        lambda s: {"state_dict": {"model": s}},
        lambda s: {f"module.{n}": v for n, v in s.items()},
        lambda s: {f"module._orig_mod.{n}": v for n, v in s.items()},
    ],
)
def test_what_is_read(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "w.pth")
    assert all(torch.equal(value, STATE[name]) for name, value in read_tensors(tmp_path / "w.pth").items())
    assert read_tensors(tmp_path / "w.pth").keys() == STATE.keys()
    legacy = tmp_path / "legacy.pth"
    torch.save(wrap(STATE), legacy, _use_new_zipfile_serialization=False)
    assert read_tensors(legacy).keys() == STATE.keys()


def test_safetensors(tmp_path):
    save_file({f"module.{n}": v for n, v in STATE.items()}, tmp_path / "w.safetensors")
    assert torch.equal(read_tensors(tmp_path / "w.safetensors")["conv.weight"], STATE["conv.weight"])
    (tmp_path / "w.safetensors").write_bytes(b"\x10")
    with pytest.raises(WeightsError, match="w.safetensors.*no safetensors file"):
        read_tensors(tmp_path / "w.safetensors")


def evil_pickle(path):
    path.write_bytes(pickle.dumps(Evil(path.with_name("mark"))))


def numpy_archive(path):
    with open(path, "wb") as file:
        np.savez(file, a=np.ones(2))


def archive_of_two_disks(path):
    """What one flipped bit makes of the end of torch's files."""
    torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x06\x07") + 4] = 1
    path.write_bytes(content)


REFUSED = {
    "is empty": lambda path: path.write_bytes(b""),
    "is a text file": lambda path: path.write_bytes("Grüße\nhello\n".encode()),
    "is a web page": lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>"),
    "Git LFS pointer": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n"),
    "zip archive of a.npy": lambda path: numpy_archive(path),
    "is damaged": lambda path: path.write_bytes(b"\x80\x02garbage" + bytes(range(256))),
    "damaged.*BadZipFile": archive_of_two_disks,
    "is a folder": lambda path: path.mkdir(),
    "TorchScript archive": lambda path: torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(path)),
    "loading it would run code.*torch.save": lambda path: torch.save({"model": STATE, "x": Evil(path.with_name("mark"))}, path),
    "is never run": evil_pickle,
    "holds a list": lambda path: torch.save([1, 2], path),
    "holds nothing": lambda path: torch.save({"model": {}}, path),
    "no tensors: conv.weight": lambda path: torch.save({"model": dict.fromkeys(STATE)}, path),
    "no tensors: 1": lambda path: torch.save({1: torch.ones(2)}, path),
    "without values": lambda path: torch.save({"a": torch.ones(2, device="meta")}, path),
    "complex": lambda path: torch.save({"a": torch.ones(2, dtype=torch.complex64)}, path),
    "not finite in a": lambda path: torch.save({"a": torch.tensor([1.0, float("inf")])}, path),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_in_one_sentence_that_names_the_file(tmp_path, reason):
    path = tmp_path / "w.pth"
    REFUSED[reason](path)
    with pytest.raises(WeightsError, match=f"w.pth.*{reason}|{reason}.*w.pth") as error:
        read_tensors(path)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
    assert not (tmp_path / "mark").exists(), "code of a file was run"


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"no weight file 'nowhere.pth'.*\.safetensors"):
        read_weights_file("nowhere.pth")


def test_a_cut_or_flipped_file_is_refused_or_equal(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": {name: torch.randn(64, 8) for name in "abc"}}, path)
    good, content = read_tensors(path), path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(content)
        if rng.random() < 0.3:
            data = data[: rng.integers(len(data))]
        else:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            found = read_tensors(path)
        except WeightsError:
            continue
        assert found.keys() == good.keys() and all(torch.equal(found[name], good[name]) for name in good)


def test_sparse_and_quantised_tensors_are_weights_like_any_other(tmp_path):
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    torch.save({"a": dense.to_sparse(), "b": torch.quantize_per_tensor(dense, 0.5, 0, torch.qint8)}, tmp_path / "w.pth")
    assert all(torch.equal(value, dense) for value in read_tensors(tmp_path / "w.pth").values())


def test_the_part_that_is_meant():
    wanted = {"a.weight", "b.weight"}
    names = ["backbone.a.weight", "backbone.b.weight", "heads.a.weight", "a.weight"]
    assert best_prefix(names, wanted) == "backbone."
    assert best_prefix([f"module.encoder_{side}.{name}" for side in "qk" for name in wanted], wanted) == "module.encoder_q."
    assert best_prefix(["a.weight", "model.a.weight"], wanted) == ""
    assert prefixes_of(["stage1.a", "net.model.a"]) == ["", "net.", "net.model."]


def test_what_lies_beside():
    assert tensors_of({"state_dict": STATE, "epoch": 3}, "w.pth")[1] == ["epoch"]


def test_the_content_says_what_a_file_is(tmp_path):
    """Of safetensors under another name, and of what came in the place of a download."""
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.safetensors").read_bytes())
    assert torch.equal(read_tensors(tmp_path / "a.pth")["a"], torch.ones(2))
    said = {b"": "is empty", b"version https://git-lfs.github.com/spec\n": "Git LFS pointer", b"<!DOCTYPE html>": "a web page"}
    for content, words in said.items():
        for ending in (".safetensors", ".pth"):
            (tmp_path / f"b{ending}").write_bytes(content)
            with pytest.raises(WeightsError, match=words):
                read_tensors(tmp_path / f"b{ending}")


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="this torch has no float8")
def test_eight_bit_floats_are_numbers_too(tmp_path):
    torch.save({"a": torch.ones(2).to(torch.float8_e4m3fn)}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth")["a"].float().tolist() == [1, 1]
    torch.save({"a": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="not finite"):
        read_tensors(tmp_path / "a.pth")
