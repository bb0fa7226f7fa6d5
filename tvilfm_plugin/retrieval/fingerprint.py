"""By what the vectors of an index were made: only such a query may be compared with them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field


class FingerprintSchema(BaseModel):
    """A fingerprint in a file."""

    model_config = ConfigDict(strict=True, extra="forbid")
    weights: str
    dim: Annotated[int, Field(ge=1)]
    normalisation: str
    preprocessing: str


class FingerprintError(ValueError):
    """Vectors of different models, or of differently prepared images, would be compared."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What has to be equal on both sides of a comparison.

    Attributes:
        weights: sha256 of the model's weights, as on the protocol cards.
        dim: D.
        normalisation: from raw features to unit vectors.
        preprocessing: from an image file to the model's pixels.
    """

    weights: str
    dim: int
    normalisation: str
    preprocessing: str

    def check(self, expected: "Fingerprint", what: str) -> None:
        """Raise if vectors with this fingerprint cannot be compared with those of another.

        Args:
            expected: of the model that searches.
            what: names these vectors in the error.
        """
        mine, theirs = asdict(self), asdict(expected)
        different = [f"{name} {mine[name]!r} instead of {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]
        if different:
            raise FingerprintError(
                f"{what} does not belong to this model: {'; '.join(different)}. Search it with the weights that made it, or "
                "embed the gallery again."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From plain values; raises if one is missing."""
        names = [one.name for one in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise FingerprintError(f"The fingerprint lacks {', '.join(missing)}. Embed the gallery again.")
        return cls(**{name: values[name] for name in names})
