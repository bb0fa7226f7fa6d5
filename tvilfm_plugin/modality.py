"""What an embedding was made from."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a search over stored vectors needs the names, but no torch
    from torch import Tensor


class Modality(StrEnum):
    """A modality has a name, never a position in a batch."""

    RGB = "rgb"
    IR = "ir"
    TEXT = "text"
    FUSION = "fusion"


ByModality = Mapping[Modality, "Tensor"]
"""One tensor per modality: images, camera numbers, channel operations."""
Embeddings = dict[Modality, "Tensor"]
"""One (N, D) tensor per modality; in a query, row n is the same query in every entry."""
