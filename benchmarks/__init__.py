"""What is timed, and how: README.md."""

import tvilfm_plugin  # noqa: F401  (before fast-reid, which does not import without it)
