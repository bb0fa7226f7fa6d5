"""Fusion of an infrared feature with text; `registries.FUSION_REGISTRY` names the classes for the config."""

from torch import Tensor, nn


class Fusion(nn.Module):
    """Makes one query feature of an infrared feature and text, all raw, i.e. before the neck.

    Attributes:
        filters: whether the text of the infrared image is used at all; if not, it is not encoded in training.
    """

    filters = True

    def __init__(self, *, dim: int) -> None:
        """Args:
        dim: D, for fusions with weights.
        """
        super().__init__()
        self.dim = dim

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None) -> Tensor:
        """Row n is the same person in every argument.

        Args:
            ir: (B, D) features of infrared images.
            text: (B, D) features of captions of visible images, with colours.
            ir_text: (B, D) features of captions of the infrared images, without colours; None only if not `filters`.

        Returns:
            (B, D).
        """
        raise NotImplementedError


class Add(Fusion):
    """f_F = f_ir + f_T(T_rgb): ablation B."""

    filters = False

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None = None) -> Tensor:
        """See `Fusion.forward`."""
        return ir + text


class FilteredAdd(Fusion):
    """Semantic filtered fusion (SFF, Eq. 7): f_F = f_ir + f_T(T_rgb) - f_T(T_ir).

    What both texts say, the infrared image shows as well; what is left of the text is its colours.
    """

    def forward(self, ir: Tensor, text: Tensor, ir_text: Tensor | None) -> Tensor:
        """See `Fusion.forward`."""
        if ir_text is None:
            raise ValueError(
                "FilteredAdd subtracts the text of the infrared image, but there is none. Give ir_tokens beside "
                "rgb_tokens, or choose TVILFM.FUSION Add."
            )
        return ir + text - ir_text


FUSIONS: dict[str, type[Fusion]] = {"Add": Add, "FilteredAdd": FilteredAdd, "SFF": FilteredAdd}
"""By the name that a config gives them; SFF is the paper's."""
