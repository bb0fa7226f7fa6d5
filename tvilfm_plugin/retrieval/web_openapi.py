"""The endpoint's description: OpenAPI 3.1 as JSON, and the same as a page without scripts."""

import html
import json
from collections.abc import Mapping
from typing import Any

from tvilfm_plugin import __version__
from tvilfm_plugin.retrieval.web_query import HITS, PICTURES, TEXT_CHARACTERS

_ERRORS = {
    400: "no JSON object in UTF-8", 403: "another host name or origin", 408: "the request took too long to arrive",
    413: "too large", 415: "not application/json", 422: "a field that cannot be meant", 503: "too many requests at once",
}  # fmt: skip
_PICTURE = {"type": "string", "contentEncoding": "base64", "description": "the bytes of a PNG, JPEG or BMP file"}
_TEXT = {"type": "string", "maxLength": TEXT_CHARACTERS}
_VECTOR = {"type": "array", "items": {"type": "number"}}


def openapi(about: Mapping[str, Any]) -> dict[str, Any]:
    """The description of one server."""
    members = {"type": "array", "items": {"enum": about["members"]}, "description": "who votes; all without it"}
    search = {
        "image": {**_PICTURE, "description": "infrared picture, " + _PICTURE["description"]},
        "images": {"type": "array", "items": _PICTURE, "maxItems": PICTURES - 1, "description": "more of the same person"},
        "text": {**_TEXT, "description": "what a witness says, with colours"},
        "infrared_text": {**_TEXT, "description": "what the infrared picture shows: the filter of the fusion"},
        "members": members,
        "top": {"type": "integer", "minimum": 1, "maximum": HITS, "default": 10},
        "threshold": {"type": "number", "description": "similarity that a hit needs"},
    }
    hit = {
        "picture": {"type": "string", "description": "its name below /gallery/"},
        "person": {"type": ["integer", "null"]}, "camera": {"type": ["integer", "null"]},
        "time": {"type": ["number", "null"]}, "similarity": {"type": "number"},
        "shares": _object(dict.fromkeys(about["members"], {"type": "number"}), "they add up to the similarity"),
    }  # fmt: skip
    hits = {"hits": {"type": "array", "items": _object(hit)}, "note": {"type": "string"}}
    embed = {
        "images": {"type": "array", "items": _PICTURE, "maxItems": PICTURES},
        "modality": {"enum": ["ir", "rgb"], "default": "ir", "description": "of the pictures"},
        "texts": {"type": "array", "items": _TEXT, "maxItems": PICTURES, "description": "in the place of pictures"},
    }
    vectors = {"vectors": {"type": "array", "items": _VECTOR}, "weights": {"type": "string", "description": "their sha256"}}
    paths = {
        "/search": {"post": _operation("Gallery pictures that fit best", _object(hits), _object(search))},
        "/embed": {"post": _operation("Unit vectors of pictures or of texts", _object(vectors), _object(embed))},
        "/health": {"get": _operation("Whether requests are answered", _object({"status": {"const": "ok"}}))},
        "/info": {"get": _operation("Model, gallery and limits", {"type": "object"})},
        "/gallery/{picture}": {"get": _gallery()},
    }
    info = {"title": about["title"] or "tvilfm serve", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def _object(properties: Mapping[str, Any], description: str = "") -> dict[str, Any]:
    made = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return {**made, "description": description} if description else made


def _operation(summary: str, answer: Mapping[str, Any], body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": summary, **_json(answer)}}}
    if body is not None:
        made["requestBody"] = {"required": True, **_json(body)}
        wrong = _object({"error": {"type": "string"}})
        made["responses"] |= {str(status): {"description": why, **_json(wrong)} for status, why in _ERRORS.items()}
    return made


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": dict(schema)}}}


def _gallery() -> dict[str, Any]:
    summary = "A gallery picture that a search has found"
    name = {"name": "picture", "in": "path", "required": True, "schema": {"type": "string"}}
    answer = {"description": summary, "content": {"image/jpeg": {}}}
    return {"summary": summary, "parameters": [name], "responses": {"200": answer, "404": {"description": "no such picture"}}}


def openapi_page(described: Mapping[str, Any]) -> str:
    """The description as one HTML page; it loads nothing."""
    parts = [f"<h1>{html.escape(described['info']['title'])}</h1>", '<p><a href="openapi.json">openapi.json</a></p>']
    for path, operations in described["paths"].items():
        for method, one in operations.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(one['summary'])}.</p>")
            for title, part in (("Request", one.get("requestBody")), ("Answer", one["responses"]["200"])):
                schema = ((part or {}).get("content") or {}).get("application/json", {}).get("schema")
                if schema:
                    parts.append(f"<h3>{title}</h3><pre>{html.escape(json.dumps(schema, indent=1))}</pre>")
            others = {code: answer["description"] for code, answer in one["responses"].items() if code != "200"}
            parts += [f"<p>{code}: {html.escape(why)}</p>" for code, why in others.items()]
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>tvilfm serve</title><body>{''.join(parts)}</body></html>"
