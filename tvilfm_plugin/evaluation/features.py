"""Raw features of texts, and those of all processes in one order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from fastreid.utils import comm
from torch import Tensor
from tqdm import tqdm

TEXT_BATCH = 256


def encode_texts(
    model: Any,
    texts: Sequence[str],
    tokenize: Callable[[Sequence[str]], Tensor] | None = None,
    quiet: bool = True,
    **precision: bool,
) -> Tensor:
    """(S, D) raw features of S strings, in batches of similar length that the ranks share.

    Args:
        tokenize: strings -> (S, L) ids; None: the model's own.
        precision: `amp`, for the model's `encode_text`.
    """
    tokens = (tokenize or model.tokenize)(texts)
    # Only for the order: where a text ends is the encoder's to say, which cuts each batch to its longest.
    length = tokens.shape[1] - (tokens != 0).flip(dims=[1]).int().argmax(dim=1)
    # Whole batches to each process: a text's feature must not depend on how many there are.
    batches = torch.argsort(length).split(TEXT_BATCH)[comm.get_rank() :: comm.get_world_size()]
    device = next(model.parameters()).device
    rows, features = [], []
    for some in tqdm(batches, desc="Encoding texts", unit="batch", disable=quiet or None, leave=False):
        rows.append(some)
        features.append(model.encode_text(tokens[some].to(device), **precision).cpu())
    return gather(rows, features, len(texts), "texts")


def gather(rows: list[Tensor], features: list[Tensor], expected: int, what: str) -> Tensor:
    """All ranks' rows in the order of their index, in every process."""
    shares = comm.all_gather((torch.cat(rows), torch.cat(features)) if rows else None)
    shares = [share for share in shares if share is not None]
    index = torch.cat([share[0] for share in shares])
    if not torch.equal(index.sort().values, torch.arange(expected)):
        raise RuntimeError(f"The {what} of the evaluation are incomplete: {len(index)} rows for {expected}.")
    everything = torch.cat([share[1] for share in shares])
    if not torch.isfinite(everything).all():
        bad = int((~torch.isfinite(everything).all(dim=1)).sum())
        raise FloatingPointError(
            f"{bad} of {expected} {what} have non-finite features, which cannot be ranked. The weights have diverged or "
            "overflow in half precision: check the training loss, and evaluate in float32."
        )
    return everything[index.argsort()]
