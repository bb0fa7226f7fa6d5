"""What a client of the web page may send: limits, and a request body turned into a query or refused in plain words.

Nothing here opens a file: a picture arrives as bytes and is decoded from memory, and no field names a path.
"""

import base64
import binascii
import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image

from tvilfm_plugin.description.questions import QUESTIONS, understood
from tvilfm_plugin.files.pictures import DepthError, SeveralError, Window, open_picture
from tvilfm_plugin.modality import Modality

IMAGE_BYTES = 8 << 20  # of an uploaded file
IMAGE_PIXELS = 16_000_000
IMAGE_SIDES = (8, 10_000)  # shortest and longest side, in pixels
# Each further decoder is code that a stranger's bytes reach; infrared cameras and data sets write these three.
IMAGE_FORMATS = ("PNG", "JPEG", "BMP")
TEXT_CHARACTERS = 500
HITS = 50
PICTURES = 16  # of one person, in one search; together no larger than one may be
FIELDS = ("image", "text", "infrared_text", "members", "top")
# Base64 makes 4 characters of 3 bytes; a character of a text is up to 12 bytes as a pair of JSON escapes.
BODY_BYTES = IMAGE_BYTES * 4 // 3 + 2 * 12 * TEXT_CHARACTERS + 4096
DEEP = (
    "The picture has more than 8 bits per pixel, and this model has no INPUT.IR_SCALING that says which counts are black and "
    "white; save it with 8 bits."
)
DEEP_COLOURS = "The picture has more than 8 bits in several channels; save it with 8, or with the camera's one channel."
MEMBERS = (Modality.IR, Modality.TEXT, Modality.FUSION)


class Refused(Exception):
    """A request that is not answered; `reason` is ours to the letter and goes to the client, so it never quotes a cause."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Query(NamedTuple):
    """What is searched for: the uploaded RGB picture or None, what the witness said and what the picture shows, or ""."""

    infrared: Image.Image | None
    text: str
    infrared_text: str
    members: tuple[Modality, ...]
    top: int


class Search(NamedTuple):
    """A query, all pictures of its person, the similarity that a hit needs (or None), answers (None: no questions)."""

    query: Query
    pictures: tuple[Image.Image, ...]
    threshold: float | None
    answers: dict[str, str] | None


def read_search(body: bytes, members: Sequence[Modality] = MEMBERS, window: Window | None = None) -> Search:
    """The search of a request body: a JSON object with `image` (base64), `images` (more pictures of the same person), `text`,
    `infrared_text`, `members`, `top`, `threshold` and `answers` (of a witness: attribute -> words).

    Args:
        body: every field may be missing or null; without `members` all vote, without `top` there are ten hits.
        members: the members that can vote here.
        window: what of a picture with more than 8 bits becomes grey; None refuses such pictures.

    Raises:
        Refused: with the reason for the client.
    """
    fields = _object(body)
    threshold, more, answers = (fields.pop(name, None) for name in ("threshold", "images", "answers"))
    # A similarity is the sum of at most three cosines. JSON as Python reads it has NaN, which no comparison holds of.
    most = len(MEMBERS)
    if threshold is not None and (type(threshold) not in (int, float) or not -most <= threshold <= most):
        raise Refused(422, f"threshold is a similarity from {-most} to {most}.")
    if more is None:
        more = []
    if not isinstance(more, list) or not all(isinstance(one, str) and one for one in more):
        raise Refused(422, "images is a list of pictures' bytes in base64.")
    if more and not fields.get("image"):
        raise Refused(422, "images holds further pictures of the person in image; give image first.")
    if 1 + len(more) > PICTURES:
        raise Refused(422, f"At most {PICTURES} pictures of one person can be searched for at once.")
    first = fields.get("image")
    _check_size([*([first] if isinstance(first, str) else []), *more])
    query = _query(fields, members, window)
    pictures = () if query.infrared is None else (query.infrared, *(decode_picture(_bytes(one), window) for one in more))
    return Search(query, pictures, None if threshold is None else float(threshold), _answers(answers))


def _check_size(encoded: Sequence[str]) -> None:
    """What all pictures of a request may have together, in base64."""
    if sum(map(len, encoded)) > IMAGE_BYTES * 4 // 3 + 4 * PICTURES:
        raise Refused(413, f"The pictures' files are too large; at most {IMAGE_BYTES >> 20} MiB together.")


def _answers(answers: object) -> dict[str, str] | None:
    if answers is None:
        return None
    if not isinstance(answers, dict) or not set(answers) <= set(QUESTIONS):
        raise Refused(422, f"answers is an object of words by attribute; there are {', '.join(QUESTIONS)}.")
    said = {slot: _text(words, "an answer") for slot, words in answers.items()}
    for slot, words in said.items():
        try:
            understood(slot, words)
        except ValueError:
            raise Refused(422, f"The answer does not say what was asked: {QUESTIONS[slot].question}") from None
    return said


def read_embedding(body: bytes, has_text: bool, window: Window | None = None) -> tuple[Modality, list[Image.Image], list[str]]:
    """What a body wants embedded: `images` (base64) of one `modality` ("ir": through `window`; "rgb"), or `texts`."""
    fields = _object(body)
    if set(fields) - {"images", "modality", "texts"}:
        raise Refused(422, "Unknown field; images, modality and texts are known.")
    images, texts, modality = fields.get("images") or [], fields.get("texts") or [], fields.get("modality") or "ir"
    if bool(images) == bool(texts) or not all(
        isinstance(some, list) and len(some) <= PICTURES and all(isinstance(one, str) and one for one in some)
        for some in (images, texts)
    ):
        raise Refused(422, f"Give either images, pictures' bytes in base64, or texts: a list of at most {PICTURES}.")
    if modality not in ("ir", "rgb"):
        raise Refused(422, "modality is ir or rgb.")
    if texts and not has_text:
        raise Refused(422, "This model has no text: pictures only.")
    _check_size(images)
    words = [_text(one, "a text") for one in texts]
    if not all(words) and texts:
        raise Refused(422, "A text is empty.")
    window = window if modality == "ir" else None
    return Modality.TEXT if texts else Modality(modality), [decode_picture(_bytes(one), window) for one in images], words


def _query(fields: dict[str, Any], members: Sequence[Modality], window: Window | None) -> Query:
    if set(fields) - set(FIELDS):
        raise Refused(422, f"Unknown field; a search has {', '.join(FIELDS)}, images, threshold and answers.")
    chosen = fields.get("members")
    if chosen is None:
        chosen = [member.value for member in members]
    names = [member.value for member in members]
    if not isinstance(chosen, list) or not all(isinstance(name, str) and name in names for name in chosen):
        raise Refused(422, f"members is a list of {', '.join(names)}.")
    top = 10 if fields.get("top") is None else fields["top"]
    # bool is an int to Python, not to a reader.
    if not isinstance(top, int) or isinstance(top, bool) or not 1 <= top <= HITS:
        raise Refused(422, f"top is a whole number from 1 to {HITS}.")
    text, infrared_text = (_text(fields.get(name), name) for name in ("text", "infrared_text"))
    if (text or infrared_text) and not {Modality.TEXT, Modality.FUSION} & set(members):
        raise Refused(422, "This model has no text: search with a picture only.")
    encoded = fields.get("image")
    if encoded is not None and not isinstance(encoded, str):
        raise Refused(422, "image is the picture's bytes in base64.")
    query = Query(
        decode_picture(_bytes(encoded), window) if encoded else None,
        text,
        infrared_text,
        tuple(member for member in members if member.value in chosen),
        top,
    )
    if query.infrared is None and not text:
        raise Refused(422, "Nothing to search for: give an infrared picture, what the witness said, or both.")
    if not query.members:
        raise Refused(422, "Every member is switched off; switch one on.")
    return query


def decode_picture(data: bytes, window: Window | None = None) -> Image.Image:
    """An uploaded file of IMAGE_FORMATS within the limits as an RGB picture, upright; `window` as for `read_search`."""
    kinds = ", ".join(IMAGE_FORMATS)
    if len(data) > IMAGE_BYTES:
        raise Refused(413, f"The picture's file is too large; at most {IMAGE_BYTES >> 20} MiB.")
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            shortest, longest = min(image.size), max(image.size)
            if image.width * image.height > IMAGE_PIXELS or longest > IMAGE_SIDES[1]:
                raise Refused(413, f"The picture has too many pixels; at most {IMAGE_PIXELS // 10**6} million.")
            if shortest < IMAGE_SIDES[0]:
                raise Refused(422, f"The picture is too small; each side needs at least {IMAGE_SIDES[0]} pixels.")
            return open_picture(image, window)
    except Image.DecompressionBombError:
        raise Refused(413, f"The picture has too many pixels; at most {IMAGE_PIXELS // 10**6} million.") from None
    except DepthError:
        raise Refused(422, DEEP if window is None else DEEP_COLOURS) from None
    except SeveralError:
        raise Refused(422, "The file holds several pictures (an animation, or pages); send the one that is meant.") from None
    except Refused:
        raise
    # A damaged file raises whatever its decoder meets first: OSError, SyntaxError, ValueError, struct.error ...
    except Exception:
        raise Refused(422, f"This is no picture that can be read, or it is damaged; {kinds} are accepted.") from None


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body.decode("utf-8"), object_pairs_hook=_each_once)
    # Deep nesting ends in a RecursionError, an endless number in a ValueError.
    except (ValueError, RecursionError):
        raise Refused(400, "The request is no JSON object in UTF-8.") from None
    if not isinstance(fields, dict):
        raise Refused(400, "The request is no JSON object in UTF-8.")
    return fields


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(fields := dict(pairs)) < len(pairs):
        raise Refused(422, "A field stands in the request twice; give each once.")
    return fields


def _text(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(422, f"{name} is a text.")
    if len(value) > TEXT_CHARACTERS:
        raise Refused(413, f"{name} is too long; at most {TEXT_CHARACTERS} characters.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Refused(422, f"{name} holds half a character (a lone surrogate).") from None
    # Control characters mean nothing to the tokenizer; whatever white space is becomes one blank.
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())


def _bytes(encoded: str) -> bytes:
    if len(encoded) > IMAGE_BYTES * 4 // 3 + 4:
        raise Refused(413, f"The picture's file is too large; at most {IMAGE_BYTES >> 20} MiB.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, "image is the picture's bytes in base64.") from None
