"""Modality ensemble retrieval (MER): several embeddings of one query vote on the gallery."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tvilfm_plugin.modality import Embeddings, Modality


def ensemble(queries: Embeddings, members: Sequence[Modality], trust: Tensor | None = None) -> Tensor:
    """Modality ensemble retrieval (Eq. 10): summing unit queries adds their cosine scores.

    Args:
        queries: one (Q, D) embedding per modality; row q is the same query in each.
        members: the modalities that vote.
        trust: (Q,) weights of the members that words went into (`text_trust`); without an infrared picture among the members
            there is nothing to fall back on, and they count in full.

    Returns:
        (Q, D) queries; `ensemble(...) @ gallery.T` with unit gallery rows is the sum of the members' similarities. The
        paper's mean differs by the factor 1/M and ranks alike.
    """
    units = _units(queries, members)
    if trust is not None and Modality.IR in members:
        weight = trust.to(units[0])[:, None]
        units = [unit if m is Modality.IR else weight * unit for m, unit in zip(members, units, strict=True)]
    return torch.stack(units).sum(dim=0)


def pack(embeddings: Embeddings, members: Sequence[Modality]) -> Tensor:
    """The members' unit embeddings side by side (Eq. 11), for code that knows one feature per image.

    The cosine of a packed query and a packed gallery image is the mean of the members' similarities.

    Args:
        embeddings: one (N, D) embedding per modality. With nothing but RGB (a gallery image, which every member is
            compared with) its unit embedding stands in for each member.
        members: the blocks of a row, in this order.

    Returns:
        (N, M*D) rows of length sqrt(M).
    """
    if set(embeddings) == {Modality.RGB}:
        _check_members(members)
        return F.normalize(embeddings[Modality.RGB], dim=1).repeat(1, len(members))
    return torch.cat(_units(embeddings, members), dim=1)


def unpack(packed: Tensor, members: Sequence[Modality]) -> Embeddings:
    """The blocks of packed rows.

    Args:
        packed: (N, M*D), made by `pack` with the same members.
        members: the modality of each block.

    Returns:
        One (N, D) view per member.
    """
    _check_members(members)
    if packed.shape[1] % len(members):
        raise ValueError(
            f"Rows of width {packed.shape[1]} cannot hold {len(members)} members of equal width "
            f"({_names(members)}). Unpack with the members that the rows were packed with."
        )
    return dict(zip(members, packed.chunk(len(members), dim=1), strict=True))


def _units(embeddings: Embeddings, members: Sequence[Modality]) -> list[Tensor]:
    _check_members(members)
    missing = [m for m in members if m not in embeddings]
    if missing:
        raise KeyError(
            f"No {_names(missing)} embedding for the ensemble of {_names(members)}; there is {_names(embeddings)}. "
            "Text and fusion need a text source, or leave them out of the members."
        )
    sizes = {tuple(embeddings[m].shape) for m in members}
    if len(sizes) > 1:
        raise ValueError(f"Row n of every member must be the same query, but the members have shapes {sorted(sizes)}.")
    return [F.normalize(embeddings[m], dim=1) for m in members]


def _names(modalities: Iterable[Modality]) -> str:
    return ", ".join(m.value for m in modalities) or "none"


def _check_members(members: Sequence[Modality]) -> None:
    if not members or len(set(members)) < len(members):
        raise ValueError(f"An ensemble needs one or more different members, got {[m.value for m in members]}.")
