"""Locks: one holder, a clear sentence for the others, and nothing left when a process dies."""

import multiprocessing
import os
import sys

import pytest

from tvilfm_plugin.files.writing import FolderError, InUseError, atomic_file, check_file, locked, make_folder, write_text


def _hold(path, ready, finish):
    with locked(path, "index"):
        ready.set()
        finish.wait(20)


def test_a_lock_has_one_holder_and_dies_with_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, finish = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "a.lock", ready, finish))
    process.start()
    assert ready.wait(20)
    said = r"Another process is building this index \(.*a.lock is locked\); wait for it"
    with pytest.raises(InUseError, match=said), locked(tmp_path / "a.lock", "index", wait=0):
        pass
    process.kill()
    process.join(20)
    with locked(tmp_path / "a.lock", "index", wait=5):
        pass


def test_a_written_text_is_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    """Where nothing is said of line ends, Windows writes LF as CR LF."""
    options, open_descriptor = {}, os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *args, **named: options.update(named) or open_descriptor(*args, **named))
    write_text(tmp_path / "a.csv", "x\r\ny\n")
    assert options["newline"] == "" and (tmp_path / "a.csv").read_bytes() == b"x\r\ny\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_no_room_is_called_so_also_where_a_library_hides_it(tmp_path):
    """torch's writer raises an error of its own in place of the system's."""
    import resource
    import signal

    import torch

    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, atomic_file(tmp_path / "a.pth") as file:
            torch.save({str(n): torch.rand(1000, 10) for n in range(20)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.filename == str(tmp_path / "a.pth") and not os.listdir(tmp_path)


def test_what_cannot_be_written_to_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    said = {
        "": "is empty; name a folder",
        " ": "is empty; name a folder",
        tmp_path / "file": "is a file. Name another folder",
        tmp_path / "file" / "a" / "b": "is a file. Name another folder",
        tmp_path / "link" / "a": "is a link to nowhere",
        tmp_path / ("a" * 300): "cannot be made .*Name another folder",
        f"{tmp_path}/a\0b": "cannot be made .*Name another folder",
    }
    for place, words in said.items():
        with pytest.raises(FolderError, match=words):
            make_folder(place)
    with pytest.raises(FolderError, match="OUTPUT_DIR is empty"):
        make_folder("", "OUTPUT_DIR")
    assert make_folder(tmp_path / "a" / "b").is_dir() and make_folder(tmp_path / "a" / "b").is_dir()
    for place, words in {"": "is empty; name a file", tmp_path: "is a folder; name a file in it"}.items():
        with pytest.raises(FolderError, match=words):
            check_file(place)
    with pytest.raises(FolderError, match="is a folder; name a file in it"):
        write_text(tmp_path, "x")
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "no" / "file.json", "x")
    assert caught.value.filename == str(tmp_path / "no" / "file.json")
    assert check_file(tmp_path / "new" / "file.json").name == "file.json" and not (tmp_path / "new").exists()


def test_a_file_is_whole_or_absent(tmp_path):
    write_text(tmp_path / "a.txt", "é")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "\ud800")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "é" and os.listdir(tmp_path) == ["a.txt"]
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode, "readable as any other file"
