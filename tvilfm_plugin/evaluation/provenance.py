"""What is known of weights: whom they were trained on and how their epoch was chosen. It travels in the checkpoint."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

KEY = "provenance"
NOT_RECORDED = "not recorded"


class LeakError(ValueError):
    """Weights would be tested on persons that they were trained on."""


class TrainingSet(NamedTuple):
    """The persons of one training.

    Attributes:
        dataset: key of the data set, e.g. "regdb".
        trial: its train/test split.
        identities: folder numbers, ascending.
    """

    dataset: str
    trial: int
    identities: tuple[int, ...]

    @property
    def sha256(self) -> str:
        """Of data set, split and identities."""
        text = json.dumps([self.dataset, self.trial, sorted(self.identities)], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Provenance:
    """The record of one model; a trainer keeps it up to date and a checkpoint stores it (plain values only).

    Attributes:
        trained_on: the training sets of all stages.
        epoch_rule: how these weights were chosen, for the protocol card.
        optional: beginnings of names that came along in the file; a model without such parts leaves them out.
        features_only: whether the weights came in a model folder without a protocol: numbers of them would say nothing.
    """

    trained_on: tuple[TrainingSet, ...] = ()
    epoch_rule: str = NOT_RECORDED
    optional: tuple[str, ...] = ()
    features_only: bool = False

    def add(self, other: "Provenance") -> None:
        """These weights go on from those: whoever was trained on once stays trained on."""
        self.trained_on += tuple(one for one in other.trained_on if one not in self.trained_on)

    def check_unseen(self, dataset: str, trial: int, tested: Collection[int]) -> None:
        """Raise if a tested person was trained on.

        Args:
            dataset: key of the data set.
            trial: the split that is tested.
            tested: folder numbers of the query and gallery identities.
        """
        for training in self.trained_on:
            seen = sorted(set(training.identities) & set(tested)) if training.dataset == dataset else []
            if seen:
                shown = ", ".join(map(str, seen[:5])) + (", ..." if len(seen) > 5 else "")
                raise LeakError(
                    f"These weights were trained on {len(seen)} of the {len(set(tested))} identities ({shown}) that split "
                    f"{trial} of {dataset} tests: training used split {training.trial} (sha256 of its identities "
                    f"{training.sha256[:12]}). Such a result means nothing. On RegDB, evaluate split {training.trial} "
                    f"(DATASETS.TRIAL) or train a model for split {trial}: ten splits need ten models. SYSU-MM01's validation "
                    "identities are trained on unless SOLVER.EPOCH_RULE is validation."
                )

    # --- as a part of a checkpoint -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "trained_on": [
                {"dataset": one.dataset, "trial": one.trial, "identities": list(one.identities), "sha256": one.sha256}
                for one in self.trained_on
            ],
            "epoch_rule": self.epoch_rule,
            "optional": list(self.optional),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a stored record; persons are only ever added."""
        stored = []
        for one in state["trained_on"]:
            training = TrainingSet(one["dataset"], int(one["trial"]), tuple(one["identities"]))
            if one["sha256"] != training.sha256:
                raise ValueError(
                    f"The checkpoint's record of its training identities ({training.dataset}, split {training.trial}) does "
                    "not have the hash that was stored with it: the file was changed. Train or import the weights again."
                )
            stored.append(training)
        self.add(Provenance(tuple(stored)))
        self.epoch_rule = str(state["epoch_rule"])
        self.optional = tuple(state.get("optional", ()))
