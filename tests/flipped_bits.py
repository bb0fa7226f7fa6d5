"""Files of which some bits are flipped, for property tests."""

from hypothesis import strategies as st

FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=4)
"""Where, as a part of the file, and which bit."""


def flipped(content: bytes, flips) -> bytes:
    """The content with bits flipped; two flips of one bit change nothing."""
    changed = bytearray(content)
    for where, bit in flips:
        changed[int(where * len(content))] ^= 1 << bit
    return bytes(changed)
