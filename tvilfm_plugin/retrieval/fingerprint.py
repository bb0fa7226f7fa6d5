"""By what the vectors of an index were made: only such a query may be compared with them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class FingerprintError(ValueError):
    """Vectors of different models, or of differently prepared images, would be compared."""


class Fingerprint(BaseModel):
    """What has to be equal on both sides of a comparison.

    Attributes:
        weights: sha256 of the model's weights, as on the protocol cards.
        dim: D.
        normalisation: from raw features to unit vectors.
        preprocessing: from an image file to the model's pixels.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    weights: str
    dim: Annotated[int, Field(ge=1)]
    normalisation: str
    preprocessing: str

    def check(self, expected: "Fingerprint", what: str) -> None:
        """Raise if vectors with this fingerprint cannot be compared with those of another."""
        mine, theirs = self.to_dict(), expected.to_dict()
        different = [f"{name} {mine[name]!r} instead of {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]
        if different:
            raise FingerprintError(
                f"{what} does not belong to this model: {'; '.join(different)}. Search it with the weights that made it, or "
                "embed the gallery again."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return self.model_dump()
