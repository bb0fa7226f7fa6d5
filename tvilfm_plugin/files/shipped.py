"""Files that come with the plugin (configs, descriptions of text towers, models): found by name from anywhere."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
PRETRAINED = PACKAGE / "pretrained"
# What makes a folder a model folder; `checkpoints.model_folder` reads them.
WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"


def homes() -> list[Path]:
    """Folders that hold configs/ and projects/: the checkout that the package lies in, and the installed package."""
    return [home for home in (PACKAGE.parent, PACKAGE) if (home / "projects" / "TVILFM" / "configs").is_dir()]


def find_shipped(name: str | Path) -> Path | None:
    """A file by its path relative to the current folder, the checkout or the package."""
    paths = (home / Path(name).expanduser() for home in (Path(), *homes()))
    return next((path for path in paths if path.is_file()), None)


def find_config(name: str | Path) -> Path:
    """A config file by its path, or by the name of a shipped one.

    "sysu.yml" or "sysu" is projects/TVILFM/configs/sysu.yml, "MIP/sysu.yml" projects/MIP/configs/sysu.yml. The current folder
    comes first, then the checkout, then the package.
    """
    if not str(name):
        raise FileNotFoundError("No config file is named: give one by --config-file, e.g. sysu.yml or a path.")
    asked = Path(name).expanduser()
    for path in (asked, asked.with_name(asked.name + ".yml")) if asked.name else ():
        if (found := find_shipped(path)) is not None:
            return found
        for shipped in shipped_configs():
            project = shipped.parents[1].name
            if str(path).lower() in (shipped.name.lower(), f"{project}/{shipped.name}".lower()):
                return shipped
    known = list(dict.fromkeys(short_name(path) for path in shipped_configs()))
    close = difflib.get_close_matches(asked.name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    raise FileNotFoundError(
        f"There is no config file {str(name)!r} in {Path.cwd()}, and none of that name comes with the plugin. {hint}"
        "`tvilfm config` lists those that do."
    )


def shipped_configs() -> Iterator[Path]:
    """The leaf configs, TVI-LFM's before other projects', each from the first home that has it."""
    seen = set()
    for home in homes():
        folders = sorted((home / "projects").glob("*/configs"), key=lambda path: (path.parent.name != "TVILFM", str(path)))
        for path in (path for folder in folders for path in sorted(folder.glob("*.yml"))):
            if (key := path.relative_to(home)) not in seen:
                seen.add(key)
                yield path


def short_name(path: Path) -> str:
    """The name that `find_config` knows a shipped config by."""
    project = path.parents[1].name
    return path.name if project == "TVILFM" else f"{project}/{path.name}"


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with config.json and model.safetensors."""
    return all(os.path.isfile(os.path.join(path, name)) for name in (WEIGHTS, DESCRIPTION))


def folder_of(weights: str | os.PathLike[str]) -> Path | None:
    """The model folder that a path names, itself, by its model.safetensors, or by the name of one that comes with the plugin.

    None for any other file.
    """
    path = Path(weights)
    path = path.parent if path.name == WEIGHTS else path
    found = path if path.exists() else PRETRAINED / path
    return found if is_model_folder(found) else None


def shipped_models() -> list[str]:
    """The names of the models that come with the plugin."""
    return sorted(path.name for path in PRETRAINED.glob("*") if is_model_folder(path))


def weights_file(weights: str | os.PathLike[str]) -> Path:
    """The weight file that a path names: the file itself, or that of a model folder."""
    folder = folder_of(weights)
    return folder / WEIGHTS if folder else Path(weights)
