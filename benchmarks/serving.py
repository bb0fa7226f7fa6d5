"""`python -m benchmarks.serving`: 64 clients on loopback; latency, throughput and memory of `tvilfm serve` by size of a pass.

The network is the demo's at random weights (or a model folder, or a run), the gallery 512 noisy pictures. Every client posts
its next search (an infrared picture and words) as soon as the last one is answered.
"""

import argparse
import base64
import http.client
import io
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "blue", "green", "black", "white", "grey")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--run", default="", help="a run or a model folder; default: the demo's network at random weights")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each size")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    args = parser.parse_args()
    print("| batch | searches | per second | median, s | 95 %, s | 99 %, s | errors | MB after 5 s | half way | at the end |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        pictures = noisy_pictures(Path(folder) / "gallery", 512)
        for batch in args.batches:
            measure(args, batch, Path(folder) / "gallery", pictures)


def noisy_pictures(folder: Path, count: int) -> list[bytes]:
    """The gallery on disk, and the queries' files."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    files = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (96, 48, 3), dtype=np.uint8)).save(file, "JPEG")
        (folder / f"{number:04d}.jpg").write_bytes(file.getvalue())
        files.append(file.getvalue())
    return files


def measure(args: argparse.Namespace, batch: int, gallery: Path, pictures: list[bytes]) -> None:
    """One line of the table."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving_server", "--run", args.run, "--gallery", gallery, "--batch", str(batch)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # another process: the clients' work is not the server's
            early = pool.apply_async(clients, (port, args.clients, args.seconds, pictures[: args.clients]))
            memory = []
            for wait in (5, args.seconds / 2 - 5):
                time.sleep(wait)
                memory.append(resident(server.pid))
            seconds, latencies, errors = early.get()
        memory.append(resident(server.pid))
    finally:
        server.terminate()
        server.wait()
    done = np.sort(latencies)
    at = lambda share: done[int(share * (len(done) - 1))]
    print(
        f"| {batch} | {len(done)} | {len(done) / seconds:.1f} | {at(0.5):.2f} | {at(0.95):.2f} | {at(0.99):.2f} | {errors} | "
        f"{' | '.join(f'{one:.0f}' for one in memory)} |",
        flush=True,
    )


def clients(port: int, count: int, seconds: float, pictures: list[bytes]) -> tuple[float, list[float], int]:
    """(seconds, latency of every answered search, refused or failed ones)."""
    latencies: list[float] = []
    errors: list[int] = []
    start = time.perf_counter()

    def one(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        image = base64.b64encode(pictures[number]).decode()
        turn = 0
        while time.perf_counter() - start < seconds:
            colour = COLOURS[(number + turn) % len(COLOURS)]
            body = {"image": image, "text": f"a man in a {colour} coat", "infrared_text": "a man in a coat"}
            began = time.perf_counter()
            connection.request("POST", "/search", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                latencies.append(time.perf_counter() - began)
            else:
                errors.append(answer.status)
                connection.close()
            turn += 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, latencies, len(errors)


def resident(pid: int) -> float:
    """MB of memory that a process holds (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


if __name__ == "__main__":
    main()
