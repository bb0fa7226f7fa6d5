"""A config as `tvilfm config` prints it, and the reference of our keys."""

from collections.abc import Sequence

from tvilfm_plugin.config.check import check_config
from tvilfm_plugin.config.errors import ConfigError
from tvilfm_plugin.config.nodes import flat, read_config
from tvilfm_plugin.config.stages import stage1_config
from tvilfm_plugin.data.loaders import is_ours
from tvilfm_plugin.keys.key import shown
from tvilfm_plugin.keys.table import KEYS


def config_report(file: str = "", opts: Sequence[str] = ()) -> str:
    """The merged config, one line per key with its origin: file and line, "command line" or "default"; warnings first."""
    cfg = read_config(file, opts)
    lines = []
    try:
        if is_ours(cfg):
            lines = [f"# warning: {warning}" for warning in check_config(cfg)]
            if cfg.TVILFM.STAGE1:
                check_config(stage1_config(cfg))
    except KeyError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"DATASETS names a data set that nobody registered: {error}.") from None
    rows = [(f"{key}: {shown(value)}", cfg.origin(key)) for key, value in flat(cfg).items() if not key.endswith("OVERRIDES")]
    width = min(72, max(len(row[0]) for row in rows))
    return "\n".join([*lines, *(f"{said:<{width}}  # {origin}" for said, origin in rows)])


def keys_reference() -> str:
    """docs/config.md: every key of the plugin with default, range and meaning."""
    lines = [
        "# Config keys",
        "",
        "Made from the table in `tvilfm_plugin/keys/table.py`: every key that the plugin adds to fast-reid's. "
        "`tvilfm config FILE [KEY VALUE ...]` prints a merged config with the origin of every value.",
    ]
    section = ""
    for key in KEYS:
        head, _, name = key.name.rpartition(".")
        if (head or "SEED") != section or not section:
            section = head or "SEED"
            lines += ["", f"## {section}", "", "| key | default | may be | meaning |", "|---|---|---|---|"]
        default = f"`{shown(key.default)}`" if key.default not in ("", ()) else "empty"
        kind = key.range() or {"bool": "True, False", "str": "a text"}.get(key.kind, key.kind)
        kind = f"{key.kind} {kind}" if key.kind in ("int", "float") and key.range() else kind
        meaning = key.meaning.replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| `{name}` | {default} | {kind} | {meaning} |")
    return "\n".join(lines) + "\n"
