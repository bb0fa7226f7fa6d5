"""Whether fast-reid is installed, and what is said where it is not."""

import importlib.machinery
import sys
from typing import Any

INSTALL_COMMAND = "pip install --no-deps fastreid==1.4.0"


def host_available() -> bool:
    """Whether fast-reid is installed (or already imported)."""
    return "fastreid" in sys.modules or importlib.machinery.PathFinder.find_spec("fastreid") is not None


def require_host() -> None:
    """Raise an ImportError that names what is missing: torch, or fast-reid and its installation command."""
    if "torch" not in sys.modules and importlib.machinery.PathFinder.find_spec("torch") is None:
        raise ModuleNotFoundError("This part of tvilfm_plugin needs PyTorch, which is not installed.", name="torch")
    if not host_available():
        raise ModuleNotFoundError(_missing_host(), name="fastreid")


def _missing_host() -> str:
    return (
        "This part of tvilfm_plugin needs fast-reid, which is not installed. Its pinned requirements (torch==1.13.1) "
        f"cannot be met, so install it without them: {INSTALL_COMMAND}"
    )


class _MissingHost:
    """Last entry of `sys.meta_path`, reached where fast-reid is missing: `import fastreid` then says how to install it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name == "fastreid":
            raise ModuleNotFoundError(_missing_host(), name=name)


def explain_missing_host() -> None:
    """Let every `import fastreid`, also one in a module of ours, name the command; "No module named" would not help."""
    if _MissingHost not in sys.meta_path:
        sys.meta_path.append(_MissingHost)  # type: ignore[arg-type]
