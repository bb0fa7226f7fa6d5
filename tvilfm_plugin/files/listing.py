"""Many things in a message: the first of them, and how many there are."""

from collections.abc import Iterable, Sequence


def some(things: Iterable[object], count: int = 6) -> str:
    """The first of many things, and how many there are."""
    listed = list(map(str, things))
    return (", ".join(listed[:count]) + (f", ... ({len(listed)})" if len(listed) > count else "")) or "none"


def in_lines(problems: Sequence[str], most: int = 20) -> str:
    """The first of many problems, each in a line of its own, and how many more there are."""
    more = [f"... and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join(f"  {line}" for line in [*problems[:most], *more])
