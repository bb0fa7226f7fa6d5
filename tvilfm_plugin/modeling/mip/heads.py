"""Necks and classifiers of MIP: one pair per branch, and one per prompted layer for IAEL.

Letters: N rows, D width of a token, K training identities, P prompts.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tvilfm_plugin.modeling.mip.parts import TokenReader
from tvilfm_plugin.modeling.necks import NeckAffine, bn_neck, small_classifier

FEATURES = ("before", "after")


class PromptReader(nn.Module):
    """IAEL's token: a learned one that reads a layer's instance prompts through a block of its own, shared by all layers."""

    def __init__(self, reader: TokenReader, dim: int) -> None:
        super().__init__()
        self.reader = copy.deepcopy(reader)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))

    def forward(self, prompts: Tensor) -> Tensor:
        """(N, P, D) -> (N, D)."""
        return self.reader(self.token.expand(len(prompts), -1, -1), prompts)


class MIPHeads(nn.Module):
    """A BN neck (bias 0, frozen) and a bias-free classifier for each branch.

    Attributes:
        necks: per branch.
        classifier: "branches": per branch; "prompts": per prompted layer.
        prompt_necks: per prompted layer (bias trained).
        prompt_reader: makes one token of a layer's prompts; None takes their mean.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_classes: int,
        branches: int = 5,
        prompted_layers: int = 0,
        prompt_reader: PromptReader | None = None,
        norm: str = "BN",
        feature: str = "before",
    ) -> None:
        """Args:
        branches: global and local.
        prompted_layers: layers whose instance prompts are classified (IAEL); 0 = none.
        norm: "BN", or "syncBN" for statistics over all processes.
        feature: retrieval compares the vectors "before" or "after" the necks.
        """
        super().__init__()
        if feature not in FEATURES:
            raise ValueError(f"MODEL.MIP.FEATURE is {feature!r}; choose {' or '.join(FEATURES)}.")
        self.feature = feature
        self.necks = nn.ModuleList(bn_neck(dim, norm) for _ in range(branches))
        for neck in self.necks:
            neck.get_parameter("bias").requires_grad_(False)
        self.prompt_necks = nn.ModuleList(bn_neck(dim, norm) for _ in range(prompted_layers))
        self.prompt_reader = prompt_reader
        self.classifier = nn.ModuleDict(
            {
                "branches": nn.ModuleList(small_classifier(dim, num_classes) for _ in range(branches)),
                "prompts": nn.ModuleList(small_classifier(dim, num_classes) for _ in range(prompted_layers)),
            }
        )

    def forward(self, branches: Tensor) -> list[Tensor]:
        """(N, branches, D) raw -> per branch, (N, K) logits."""
        return self._classify(branches.unbind(1), self.necks, "branches")

    def prompt_logits(self, prompts: Sequence[Tensor]) -> list[Tensor]:
        """Per prompted layer, (N, P, D) instance prompts -> (N, K) logits."""
        read = self.prompt_reader or (lambda rows: rows.mean(dim=1))
        return self._classify([read(rows) for rows in prompts], self.prompt_necks, "prompts")

    def _classify(self, rows: Sequence[Tensor], necks: nn.ModuleList, classifier: str) -> list[Tensor]:
        classifiers = self.classifier.get_submodule(classifier).children()
        return [classify(neck(row)) for row, neck, classify in zip(rows, necks.children(), classifiers, strict=True)]

    @property
    def neck(self) -> NeckAffine:
        """What happens to a raw test feature before it is compared: nothing, or all five necks at once."""
        necks = [neck for neck in self.necks if isinstance(neck, nn.modules.batchnorm._BatchNorm)]
        one = necks[0].weight.new_ones(sum(neck.num_features for neck in necks))
        if self.feature == "before":
            return NeckAffine.identity(one)
        # neck(x) / 4 as a function of x / 4: mean and bias are divided by 4, gain and variance stay.
        share = [1.0] + [1.0 / (len(necks) - 1)] * (len(necks) - 1)

        def joined(name: str, factors: Sequence[float]) -> Tensor:
            return torch.cat([getattr(neck, name).detach() * f for neck, f in zip(necks, factors, strict=True)])

        ones = [1.0] * len(necks)
        weight, variance = joined("weight", ones), joined("running_var", ones)
        return NeckAffine(weight, joined("bias", share), joined("running_mean", share), variance, necks[0].eps)

    def embed(self, raw: Tensor) -> Tensor:
        """Raw test features (N, branches * D) -> unit embeddings, which retrieval compares."""
        neck = self.neck
        scale = neck.weight / torch.sqrt(neck.running_var + neck.eps)
        return F.normalize((raw - neck.running_mean) * scale + neck.bias, dim=1)
