"""These tests fetch what they need: they run where they are asked for, `make test-real`."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and leave it out unless `-m real` asks for it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            if "real" not in (config.option.markexpr or ""):
                item.add_marker(pytest.mark.skip(reason="fetches real parts: make test-real"))
