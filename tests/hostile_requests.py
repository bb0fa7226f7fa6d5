"""Malformed, oversize and hostile requests to the web page, and what an answer to one of them must never hold.

    python tests/hostile_requests.py --port 7860 --count 1000

sends them to a running page, eight at a time, and prints what came back.
"""

import argparse
import base64
import contextlib
import io
import json
import random
import re
import socket
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# A stack trace, a source file, a place on this machine, or a line of the file that is asked for most often.
LEAKS = re.compile(
    rb"Traceback|File \"|\.py\b|site-packages|root:.*:0:0|/(?:home|usr|etc|tmp|work|root|var|proc|Users)/"
    rb"|\b[A-Z][A-Za-z]*(?:Error|Exception)\b|0x[0-9a-f]{8}"
)
EXPECTED = {200, 400, 403, 404, 405, 408, 413, 415, 422, 431, 501, 503}


class Attack(NamedTuple):
    """`wire` is everything that is sent; `kind` names the idea."""

    kind: str
    wire: bytes


class Answer(NamedTuple):
    """`status` 0: the connection ended without an answer, which is how a broken HTTP request may end; `sent`: the request."""

    kind: str
    status: int
    body: bytes
    sent: bytes = b""


def request(path: str | bytes, body: bytes = b"", method: str = "POST", /, port: int = 0, **headers: str) -> bytes:
    """An HTTP request; headers override the ones that the page itself would send, and "-" leaves one out."""
    target = path.encode("utf-8", "surrogatepass") if isinstance(path, str) else path
    lines = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "content-length": str(len(body))}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()} | {"connection": "close"}
    head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in lines.items() if value != "-")
    return method.encode() + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + body


def picture(kind: str = "PNG", size: tuple[int, int] = (48, 96), seed: int = 0) -> bytes:
    """An innocent picture file."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, *extra: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    """A PNG with any header, extra chunks and image data."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data or zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@cache
def zeros(count: int) -> bytes:
    """`count` zero bytes, compressed a thousandfold."""
    return zlib.compress(bytes(count), 9)


def with_image(data: bytes, **fields: Any) -> bytes:
    """The body of a search with these bytes as its picture."""
    return json.dumps({"image": base64.b64encode(data).decode(), **fields}).encode()


def _damaged(rng: random.Random, port: int) -> Attack:
    data = bytearray(picture(rng.choice(["PNG", "JPEG", "BMP"]), seed=rng.randrange(9)))
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return Attack("damaged picture", request("/search", with_image(bytes(data)), port=port))


def _bomb(rng: random.Random, port: int) -> Attack:
    jpeg = bytearray(picture("JPEG"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    bmp = bytearray(picture("BMP"))
    bmp[18:26] = struct.pack("<ii", rng.choice([100_000, -(2**31), 2**31 - 1]), rng.choice([100_000, -(2**31), 0]))
    data = rng.choice(
        [
            lambda: png(60_000, 60_000),
            lambda: png(2**31 - 1, 2**31 - 1),
            lambda: png(0, 0),
            lambda: png(1, 16_000_000),
            lambda: png(8000, 8000, data=zeros(8000 * 24_001)),
            lambda: png(64, 64, data=zeros(50_000_000)),
            lambda: png(64, 64, (b"zTXt", b"k\0\0" + zeros(50_000_000))),
            lambda: png(64, 64, (b"iCCP", b"k\0\0" + zeros(50_000_000))),
            lambda: png(64, 64, (b"iTXt", b"k\0\1\0\0\0" + zeros(50_000_000))),
            lambda: png(64, 64, *[(b"tEXt", b"k\0v")] * 20_000),
            lambda: bytes(jpeg),
            lambda: bytes(bmp),
        ]
    )()
    return Attack("bomb", request("/search", with_image(data), port=port))


def _no_picture(rng: random.Random, port: int) -> Attack:
    entity = b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">'
    gif, tiff, webp = (picture(kind) for kind in ("GIF", "TIFF", "WEBP"))
    data = rng.choice(
        [
            entity + b"<text>&x;</text></svg>",
            b"<!doctype html><script>alert(1)</script>",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file",
            b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj",
            b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\npop graphic-context",
            b"PK\x03\x04" + bytes(200),
            b"\x80\x04cposix\nsystem\n(S'id'\ntR.",
            b"\x7fELF" + rng.randbytes(500),
            b"",
            b"\0",
            rng.randbytes(rng.randrange(1, 5000)),
            gif,
            tiff,
            webp,
            picture("PNG") + b"<?php system('id'); ?>",
            b"/etc/passwd",
        ]
    )
    return Attack("no picture", request("/search", with_image(data), port=port))


_PLACES = [
    "/etc/passwd", "../../../../etc/passwd", "..\\..\\..\\etc\\passwd", "file:///etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd", "....//....//etc/passwd", "/proc/self/environ", "~/.ssh/id_rsa", "C:\\Windows\\win.ini",
    "\\\\127.0.0.1\\share", "http://127.0.0.1:1/", "/dev/zero", "/dev/stdin", "con", ".", "", "*", "|id", "$(id)", "`id`",
    "model_final.pth", "exp/test_id.txt", "..%c0%af..%c0%afetc/passwd", "%00/etc/passwd",
]  # fmt: skip


def _traversal_url(rng: random.Random, port: int) -> Attack:
    place = rng.choice(_PLACES).replace(" ", "%20") or "%20"
    front = rng.choice(
        ["/", "/gallery/", "/gallery//", "/examples/", "/examples/0/", "/page.css/", "/page.css?file=", "/about?path=",
         "/file=", "/gradio_api/file=", "/static/", "/search/", "/gallery/..%2f", "//", "/gallery/0/../"]
    )  # fmt: skip
    return Attack("path in the URL", request(front + place, b"", rng.choice(["GET", "HEAD"]), port=port))


def _wrong_number(rng: random.Random, port: int) -> Attack:
    number = rng.choice(["-1", "999999", "9" * 5000, "1e9", "0x10", "٣", "NaN", "0;", "00", "f" * 32, "é", "%F0%9F%92%A9",
    "%ff"])
    return Attack("wrong number", request(f"/{rng.choice(['gallery', 'examples'])}/{number}", b"", "GET", port=port))


def _traversal_field(rng: random.Random, port: int) -> Attack:
    place = rng.choice(_PLACES)
    body = rng.choice(
        [
            {"image": place},
            {"image": {"path": place, "meta": {"_type": "gradio.FileData"}}},
            {"image": [place]},
            {"image": f"data:image/png;base64,{place}"},
            {"text": place},
            {"text": "a man", "infrared_text": place},
            {"text": "a man", "members": [place]},
            {"text": "a man", "members": place},
            {"text": "a man", "top": place},
            {"text": "a man", "gallery": place},
            {"text": "a man", "path": place},
            {"infrared": place},
            {"text": {"path": place}},
        ]
    )
    return Attack("path in a field", request("/search", json.dumps(body).encode(), port=port))


def _long(rng: random.Random, port: int) -> Attack:
    length = rng.choice([501, 5000, 100_000, 3_000_000, 20_000_000])
    letter = rng.choice(["a", "a ", "é", "\U0001f4a9", "\u0301", "<", "&amp;", "\0"])
    text = (letter * length)[:length]
    name = rng.choice(["text", "infrared_text", "image", "members", "top", "x" * 1000])
    return Attack("oversize", request("/search", json.dumps({"text": "a man", name: text}).encode(), port=port))


def _no_json(rng: random.Random, port: int) -> Attack:
    body = rng.choice(
        [
            b"", b"{", b"[]", b"null", b"1", b'"text"', b"NaN", b'{"text": "a"} x', b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}",
            b"\xff" * 99,
            b"[" * 200_000, b'{"a":' * 100_000, b'{"top": ' + b"9" * 100_000 + b"}",
            b'{"text": "a", "top": 1e999}', b"{'text': 1}",
            b'{"text": "a", "text": 5}', b'{"__proto__": {"x": 1}}', b'{"text": "\\ud800"}', b'{"text": "a\x00b"}',
            json.dumps({"text": "a man"}).encode("utf-16"), b"text=a&top=1", rng.randbytes(300), b'{"text": "\\u00"}',
        ]
    )  # fmt: skip
    return Attack("no JSON", request("/search", body, port=port))


_VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "", "10", [], {}, [[]], [None],
    [1], [{}],
    ["ir"] * 10_000, ["IR"], ["ir", "rgb"], ["__class__"], {"ir": True}, "ir", ["text"], ["fusion"],
]  # fmt: skip


def _wrong_values(rng: random.Random, port: int) -> Attack:
    names = rng.sample(["image", "text", "infrared_text", "members", "top"], rng.randrange(1, 4))
    body = {"text": "a man", **{name: rng.choice(_VALUES) for name in names}}
    return Attack("wrong value", request("/search", json.dumps(body).encode(), port=port))


def _odd_text(rng: random.Random, port: int) -> Attack:
    text = rng.choice(
        [
            "\ud800", "\udfff\ud800", "\0", "\x1b[2J\x07", "\u202e\u2066\u200b\ufeff", "\U0001f468\u200d\U0001f469" * 40,
            "e" + "\u0301" * 400,
            "\u0130\u0131\ufb03\u1e9e", "<|endoftext|>", "<|startoftext|>" * 30, "<|endoftext|> <|startoftext|> a",
            "<|mask|>", "a" * 500,
            "<start_of_text>", "&#0;&#x1;&#xD800;&lt;script&gt;", "<script>alert(1)</script>",
            "{0.__class__}{text!r}%s%n", "{{7*7}}",
            "' OR 1=1 --", "\r\nSet-Cookie: a=b", "\U0010ffff" * 250, "\uffff\ufffe", "ﷺ" * 200,
            "".join(map(chr, range(256))),
            "".join(chr(rng.randrange(0x10FFFF)) for _ in range(300)), "   \t\n ", "！？。", "9" * 500, "'s" * 250,
        ]
    )  # fmt: skip
    body = {"text": text, "infrared_text": text} if rng.random() < 0.5 else {"text": "a man", "infrared_text": text}
    wire = with_image(picture(), **body) if rng.random() < 0.5 else json.dumps(body).encode()
    return Attack("odd text", request("/search", wire, port=port))


def _wrong_method(rng: random.Random, port: int) -> Attack:
    method = rng.choice(["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 300, "POST",
    "GET"])
    path = rng.choice(["/", "/search", "/about", "/gallery/0", "/examples/0", "*", "http://127.0.0.1/", "/openapi.json",
    "/docs"])
    return Attack("wrong method", request(path, b'{"text": "a man"}', method, port=port))


def _wrong_headers(rng: random.Random, port: int) -> Attack:
    headers: dict[str, str] = rng.choice(
        [
            {"host": "evil.example"}, {"host": "127.0.0.1.evil.example"}, {"host": ""}, {"host": "-"}, {"host": "[::1"},
            {"host": "[]:1"},
            {"host": "127.0.0.1:99999999"}, {"host": "\xff"}, {"origin": "https://evil.example"}, {"origin": "null"},
            {"sec_fetch_site": "cross-site"}, {"content_type": "text/plain"},
            {"content_type": "multipart/form-data; boundary=x"},
            {"content_type": "application/x-www-form-urlencoded"}, {"content_type": "-"},
            {"content_type": "application/json; charset=utf-16"},
            {"content_encoding": "gzip"}, {"content_length": "-1"}, {"content_length": "99999999999999999999"},
            {"content_length": "x"},
            {"content_length": "1" * 5000}, {"transfer_encoding": "chunked"}, {"expect": "100-continue"},
            {"upgrade": "websocket"},
            {"cookie": "a" * 60_000}, {"x" * 70_000: "1"}, {"range": "bytes=0-99999999999"},
            {"x_forwarded_for": "127.0.0.1, ../../etc/passwd"},
            {"accept_encoding": "gzip;q=" + "9" * 1000}, {"content_length": "40000000000"},
        ]
    )  # fmt: skip
    return Attack("wrong header", request("/search", b'{"text": "a man"}\r\n', port=port, **headers))


def _no_http(rng: random.Random, port: int) -> Attack:
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    post = b"POST /search HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    wire = rng.choice(
        [
            rng.randbytes(400), b"\x16\x03\x01\x02\0\x01\0" + rng.randbytes(200), b"GET\r\n\r\n", b"\r\n" * 50,
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n" + host + b"\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            post + b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 14,
            post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}    ", post + b"Content-Length: 5000\r\n\r\n{",
            post + b"Content-Length: 99\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /gallery/\x00\xff HTTP/1.1\r\n" + host + b"\r\n",
            b"GET / HTTP/1.1\r\n" + host + b"A:" + b"b\r\n c" * 9000 + b"\r\n\r\n",
        ]
    )  # fmt: skip
    return Attack("no HTTP", wire)


KINDS: list[Callable[[random.Random, int], Attack]] = [
    _damaged, _bomb, _no_picture, _traversal_url, _wrong_number, _traversal_field, _long, _no_json, _wrong_values, _odd_text,
    _wrong_method, _wrong_headers, _no_http,
]  # fmt: skip


def attacks(count: int, port: int, seed: int = 0) -> Iterator[Attack]:
    """`count` requests, every kind equally often."""
    rng = random.Random(seed)
    for number in range(count):
        yield KINDS[number % len(KINDS)](rng, port)


def send(attack: Attack, port: int, seconds: float = 60.0) -> Answer:
    """What comes back until the server closes the connection."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        # The server need not read on once it has refused; what it said can still be read.
        with contextlib.suppress(ConnectionError):
            connection.sendall(attack.wire)
            if attack.kind == "no HTTP":  # half a request, and then nothing more
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(1 << 16):
                received += chunk
    head, _, body = bytes(received).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    fields = head.split(None, 2)
    return Answer(attack.kind, int(fields[1]) if len(fields) > 1 else 0, head + b"\n\n" + body, attack.wire)


def wrong(answer: Answer) -> str:
    """Why this answer may not be, or ""."""
    if answer.status not in EXPECTED and not (answer.status == 0 and answer.kind in ("no HTTP", "wrong header", "oversize")):
        return f"{answer.kind}: status {answer.status}: {answer.body[:300]!r}"
    text = answer.body if b"content-type: image/" not in answer.body.lower() else b""
    # A search names words that its model does not know: what the request said itself is no leak there.
    said = answer.sent if answer.status == 200 else b""
    found = next((leak for leak in LEAKS.finditer(text) if leak.group() not in said), None)
    return f"{answer.kind}: the answer holds {found.group()!r}: {answer.body[:600]!r}" if found else ""


def attack_all(count: int, port: int, seed: int = 0, at_once: int = 8) -> tuple[Counter[tuple[str, int]], list[str]]:
    """How often each kind got each status, and what was wrong."""
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda attack: send(attack, port), attacks(count, port, seed)))
    return Counter((a.kind, a.status) for a in answers), [reason for a in answers if (reason := wrong(a))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counted, reasons = attack_all(args.count, args.port, args.seed)
    for kind in dict.fromkeys(kind for kind, _ in counted):
        print(f"{kind:16}", ", ".join(f"{n} x {status}" for (k, status), n in sorted(counted.items()) if k == kind))
    print(f"{sum(counted.values())} requests, {len(reasons)} wrong answers", *reasons, sep="\n")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
