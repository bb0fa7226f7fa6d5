"""Locks: one holder, a clear sentence for the others, and nothing left when a process dies."""

import multiprocessing
import os
import sys

import pytest

from tvilfm_plugin.files.writing import InUseError, atomic_file, locked, write_text


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
