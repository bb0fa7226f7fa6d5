import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvilfm_plugin.data import image_cache
from tvilfm_plugin.data.datasets.own import relative_to
from tvilfm_plugin.data.image_cache import FILTERS, ImageCache, read_resized

SIZE = (24, 12)


def write(path, seed, size=(30, 17), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, np.uint8)).save(path)
    return str(path)


@pytest.fixture
def paths(tmp_path):
    root = tmp_path / "set"
    return [
        write(root / "cam1" / "0001.jpg", 0),
        write(root / "cam1" / "0002.jpg", 1, (50, 40)),
        write(root / "Visible" / "1" / "a.bmp", 2),
        write(root / "Thermal" / "1" / "b.bmp", 3, mode="L"),
        write(root / "exact.bmp", 4, SIZE),
    ]


def files(folder, suffix):
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


def test_images_equal_direct_reading(paths, tmp_path):
    cache = ImageCache(paths, SIZE, tmp_path / "cache")
    assert len(cache) == len(paths)
    for path, image in zip(paths, cache, strict=True):
        with Image.open(path) as file:
            expected = np.asarray(file.convert("RGB").resize((12, 24), Image.Resampling.LANCZOS))
        assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(cache[-1], np.asarray(Image.open(paths[-1])))
    with pytest.raises(IndexError):
        cache[len(paths)]


def test_images_are_read_only_views_in_planes(paths, tmp_path):
    cache = ImageCache(paths, SIZE, tmp_path / "cache")
    assert not cache[0].flags.writeable and not cache[0].flags.owndata
    assert cache[0].transpose(2, 0, 1).flags.c_contiguous


def test_an_image_of_that_size_is_not_resampled(monkeypatch, paths):
    monkeypatch.setattr(Image.Image, "resize", lambda *args, **kwargs: pytest.fail("resampled"))
    read_resized(paths[-1], SIZE)


def test_the_second_time_nothing_is_decoded(monkeypatch, paths, tmp_path):
    first = ImageCache(paths, SIZE, tmp_path / "cache")
    monkeypatch.setattr(image_cache, "read_resized", lambda *args: pytest.fail("decoded again"))
    second = ImageCache(paths, SIZE, tmp_path / "cache")
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_read_only_folder_with_a_finished_cache_is_enough(monkeypatch, paths, tmp_path):
    ImageCache(paths, SIZE, tmp_path / "cache")
    monkeypatch.setattr(image_cache, "locked", lambda path, what: pytest.fail("locked"))
    ImageCache(paths, SIZE, tmp_path / "cache")


def test_a_changed_file_is_decoded_again_and_the_old_cache_goes(paths, tmp_path):
    folder = tmp_path / "cache"
    old = ImageCache(paths, SIZE, folder)
    before, names = old[1].copy(), files(folder, ".npy")
    write(tmp_path / "set" / "cam1" / "0002.jpg", 99, (50, 40))
    os.utime(paths[1], ns=(0, os.stat(paths[1]).st_mtime_ns + 1))
    new = ImageCache(paths, SIZE, folder)
    np.testing.assert_array_equal(new[1], read_resized(paths[1], SIZE))
    assert not (new[1] == before).all() and (old[1] == before).all(), "an open cache stays as it was"
    assert len(files(folder, ".npy")) == 1 and files(folder, ".npy") != names


@pytest.mark.parametrize("change", ["mtime", "length"])
def test_what_counts_as_a_change(paths, tmp_path, change):
    first = ImageCache(paths, SIZE, tmp_path / "cache").path
    status = os.stat(paths[0])
    if change == "length":
        with open(paths[0], "ab") as file:
            file.write(b"\0")
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert ImageCache(paths, SIZE, tmp_path / "cache").path != first


def test_other_lists_and_sizes_have_their_own_files(paths, tmp_path):
    folder = tmp_path / "cache"
    caches = [
        ImageCache(paths, SIZE, folder),
        ImageCache(paths[::-1], SIZE, folder),
        ImageCache(paths[:2], SIZE, folder),
        ImageCache(paths, (12, 24), folder),
    ]
    assert len({cache.path for cache in caches}) == len(files(folder, ".npy")) == 4
    np.testing.assert_array_equal(caches[0][0], caches[1][-1])
    assert caches[3][0].shape == (12, 24, 3)


def test_a_data_set_moves_with_its_cache(monkeypatch, paths, tmp_path):
    ImageCache(paths, SIZE, tmp_path / "set" / ".cache")
    shutil.move(tmp_path / "set", tmp_path / "moved")
    moved = [path.replace("/set/", "/moved/") for path in paths]
    monkeypatch.setattr(image_cache, "read_resized", lambda *args: pytest.fail("decoded again"))
    assert len(ImageCache(moved, SIZE, tmp_path / "moved" / ".cache")) == len(paths)
    monkeypatch.chdir(tmp_path)
    relative = [os.path.relpath(path) for path in moved]
    assert len(ImageCache(relative, SIZE, "moved/.cache")) == len(paths)


def test_a_cache_on_another_drive(monkeypatch, paths, tmp_path):
    """Windows knows no relative path from one drive to another."""

    def relpath(path, start):
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    assert len(ImageCache(paths, SIZE, tmp_path / "cache")) == len(paths)
    assert relative_to(str(tmp_path / "other"), paths[0]) == paths[0]


def test_pickles_by_reference(paths, tmp_path):
    cache = ImageCache(paths, SIZE, tmp_path / "cache")
    data = pickle.dumps(cache)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert all((a == b).all() for a, b in zip(cache, copy, strict=True)) and not copy[0].flags.writeable
    cache.path.unlink()
    with pytest.raises(FileNotFoundError, match="will be rebuilt"):
        pickle.loads(data)


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise", "header", "other shape"])
def test_a_damaged_cache_is_rebuilt(paths, tmp_path, damage, caplog):
    cache = ImageCache(paths, SIZE, tmp_path / "cache")
    data = cache.path.read_bytes()
    expected = [image.copy() for image in cache]
    del cache
    target = next((tmp_path / "cache").glob("*.npy"))
    if damage == "other shape":
        np.save(target, np.zeros((2, 3, *SIZE), np.uint8))
    else:
        header = data.replace(b"}", b" ", 1)  # numpy's tokenizer of it raises what is no ValueError
        target.write_bytes({"truncated": data[:-100], "empty": b"", "noise": b"noise" * 100, "header": header}[damage])
    with caplog.at_level(logging.WARNING):
        again = ImageCache(paths, SIZE, tmp_path / "cache")
    assert "will be made again" in caplog.text
    assert all((a == b).all() for a, b in zip(expected, again, strict=True))


def test_broken_images_are_named_and_nothing_is_lost(paths, tmp_path):
    folder = tmp_path / "cache"
    ImageCache(paths, SIZE, folder)
    before = files(folder, ".npy")
    data = Path(paths[1]).read_bytes()
    Path(paths[1]).write_bytes(data[: len(data) // 2])
    Path(paths[2]).write_bytes(b"no image")
    with pytest.raises(OSError, match="2 of 5 images cannot be read.*0002.jpg.*a.bmp"):
        ImageCache(paths, SIZE, folder)
    assert files(folder, ".npy") == before and not files(folder, ".part")
    Path(paths[1]).write_bytes(data)
    write(tmp_path / "set" / "Visible" / "1" / "a.bmp", 2)
    assert len(ImageCache(paths, SIZE, folder)) == 5


def test_a_hopeless_disk_is_given_up_early(monkeypatch, tmp_path):
    monkeypatch.setattr(image_cache, "_GIVE_UP_AFTER", 3)
    for n in range(200):
        (tmp_path / f"{n:03d}.jpg").write_bytes(b"x")
    with pytest.raises(OSError, match="at least .* of 200 images cannot be read"):
        ImageCache([str(tmp_path / f"{n:03d}.jpg") for n in range(200)], SIZE, tmp_path / "cache")


def test_missing_images_are_named(paths, tmp_path):
    with pytest.raises(OSError, match="1 of 6 images do not exist: .*nowhere.jpg"):
        ImageCache([*paths, str(tmp_path / "nowhere.jpg")], SIZE, tmp_path / "cache")


def test_an_empty_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one image"):
        ImageCache([], SIZE, tmp_path / "cache")


@pytest.mark.parametrize("when", ["before", "while writing"])
def test_a_full_disk_loses_nothing(monkeypatch, paths, tmp_path, when):
    folder = tmp_path / "cache"
    ImageCache(paths, SIZE, folder)
    before = files(folder, ".npy")
    os.utime(paths[0])
    with monkeypatch.context() as patch:
        if when == "before":
            usage = shutil.disk_usage(tmp_path)
            patch.setattr(image_cache.shutil, "disk_usage", lambda path: usage._replace(free=10))
        else:
            written, real = [], os.pwrite

            def pwrite(*args):
                written.append(args)
                if len(written) > 3:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args)

            patch.setattr(image_cache.os, "pwrite", pwrite)
        with pytest.raises(OSError, match="DATASETS.CACHE") as caught:
            ImageCache(paths, SIZE, folder)
        assert caught.value.errno == errno.ENOSPC
    assert files(folder, ".npy") == before and not files(folder, ".part")
    np.testing.assert_array_equal(ImageCache(paths, SIZE, folder)[0], read_resized(paths[0], SIZE))


def test_short_writes_are_completed(monkeypatch, paths, tmp_path):
    real = os.pwrite
    monkeypatch.setattr(image_cache.os, "pwrite", lambda handle, data, at: real(handle, data[:100], at))
    for path, image in zip(paths, ImageCache(paths, SIZE, tmp_path / "cache"), strict=True):
        np.testing.assert_array_equal(image, read_resized(path, SIZE))


def test_a_folder_that_cannot_be_made(paths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="DATASETS.CACHE"):
        ImageCache(paths, SIZE, tmp_path / "file" / "cache")


def _build(paths, folder, log, barrier):
    real = image_cache.read_resized

    def counted(path, *arguments):
        with open(log, "a") as file:
            file.write(f"{path}\n")
        time.sleep(0.01)
        return real(path, *arguments)

    image_cache.read_resized = counted
    barrier.wait()
    cache = ImageCache(paths, SIZE, folder)
    assert all((cache[i] == real(path, SIZE)).all() for i, path in enumerate(paths))


def test_processes_that_build_at_once_all_succeed_and_one_decodes(paths, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    args = (paths, tmp_path / "cache", tmp_path / "log", barrier)
    processes = [context.Process(target=_build, args=args) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == sorted(paths)


def _build_slowly(paths, folder):
    real = image_cache.read_resized

    def slow(path, *arguments):
        if path == paths[-1]:
            (folder.parent / "reached").touch()
            time.sleep(60)
        return real(path, *arguments)

    image_cache.read_resized = slow
    ImageCache(paths, SIZE, folder)


def test_a_killed_build_leaves_nothing_that_is_trusted(paths, tmp_path):
    folder = tmp_path / "cache"
    process = multiprocessing.get_context("fork").Process(target=_build_slowly, args=(paths, folder))
    process.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert files(folder, ".part") and not files(folder, ".npy")
    cache = ImageCache(paths, SIZE, folder)
    assert all((cache[i] == read_resized(path, SIZE)).all() for i, path in enumerate(paths))
    assert not files(folder, ".part") and len(files(folder, ".npy")) == 1


def test_filters(paths, tmp_path):
    caches = {name: ImageCache(paths, SIZE, tmp_path / "cache", name) for name in FILTERS}
    assert len({cache.path for cache in caches.values()}) == len(FILTERS)
    for name, cache in caches.items():
        again = ImageCache(paths, SIZE, tmp_path / "cache", name)
        assert again.path == cache.path
        for path, image in zip(paths, again, strict=True):
            expected = Image.open(path).convert("RGB").resize(SIZE[::-1], FILTERS[name])
            np.testing.assert_array_equal(image, np.asarray(expected))
    assert caches["lanczos"].path == ImageCache(paths, SIZE, tmp_path / "cache").path
    with pytest.raises(ValueError, match="'nearest' .*choose lanczos, bicubic, bilinear"):
        ImageCache(paths, SIZE, tmp_path / "cache", "nearest")
