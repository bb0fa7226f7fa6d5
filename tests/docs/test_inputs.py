"""docs/inputs.md quotes what the package says: every constant piece of a quoted message stands in its source."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def source() -> str:
    """All string literals as they read: without the breaks between two lines of one message."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tvilfm_plugin").rglob("*.py")))
    return re.sub(r"[\"']\s*\n\s*f?[\"']", "", code)


def pieces(quote: str) -> list[str]:
    """What of a message does not depend on the input."""
    parts = re.split(r"\.\.\.|'[^']*'|[A-Z][A-Z0-9_.]{3,}|\b(?:leaf\.yml|True|nan|NaN|\d+)\b|[():;,.?]", quote)
    return [part.strip() for part in parts if len(part.strip()) > 8]


def test_every_quoted_message_is_one():
    code = source()
    rows = [line for line in (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    quotes = [quote for row in rows for quote in re.findall(r'"([^"]+)"', row.split("|")[3])]
    assert len(quotes) > 40
    missing = [piece for quote in quotes for piece in pieces(quote) if piece not in code]
    assert not missing
