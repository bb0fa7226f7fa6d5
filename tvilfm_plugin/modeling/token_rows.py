"""Token embeddings without the words that their training never saw, as a small model's file holds them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tvilfm_plugin.files.weights import WeightsError

# The ids of the rows that are there.
ROWS = "token_embedding.rows"
TABLE = "token_embedding.weight"


def whole_tables(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dict whose token embeddings have all rows again; zeros stand for words that were left out.

    Args:
        state: of a file.
        own: of the model: how many rows there are.

    Returns:
        The state dict, and per part ("text") the ids of the rows that the file had; empty for a file with all of them.
    """
    whole, known = dict(state), {}
    for name in [name for name in state if name.endswith(ROWS)]:
        part = name.removesuffix(ROWS)
        rows, table, wanted = whole.pop(name), state.get(part + TABLE), own.get(part + TABLE)
        if table is None or wanted is None:
            continue  # what does not fit is said by who compares the names
        numbered = rows.dim() == 1 and len(rows) == len(table) > 0
        if not numbered or not 0 <= int(rows.min()) <= int(rows.max()) < len(wanted):
            raise WeightsError(f"{name} does not number the {len(table)} rows of {part + TABLE}: the file is damaged.")
        full = table.new_zeros(len(wanted), *table.shape[1:])
        full[rows.long()] = table
        whole[part + TABLE], known[part.rstrip(".")] = full, rows.long()
    return whole, known


def fewer_rows(state: Mapping[str, Tensor], tokens: Tensor) -> dict[str, Tensor]:
    """A state dict that keeps of every token embedding the rows of some ids (in ascending order) and their numbers."""
    kept = torch.unique(tokens)
    found = dict(state)
    for name in [name for name in state if name.endswith(TABLE)]:
        found[name] = state[name][kept]
        found[name.removesuffix(TABLE) + ROWS] = kept.to(torch.int32)
    return found
