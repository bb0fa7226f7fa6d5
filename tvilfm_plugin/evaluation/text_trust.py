"""An ensemble that knows when words are bad: how far each query's words fit its infrared picture, and their weight for it.

Three kinds of evidence, none of which sees a label or the gallery: the words against the infrared picture and against its
caption (cosines through the model), and the words against that caption attribute by attribute (`description.reading`). What
they are worth is learned on training people: their own words against those of other training people. The weight of the words
follows from the probability that they fit (Bayes), which needs to know how often words are wrong: evenly often, or as often as
the evidence of all queries together says, which expectation maximisation finds (Saerens, Latinne and Decaestecker, 2002).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass
from dataclasses import fields as dataclass_fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from tvilfm_plugin.description.reading import read
from tvilfm_plugin.files.json import expect_object, read_json
from tvilfm_plugin.files.writing import write_text

FILE = "text_trust.json"
SINGLE, JOINT = "single", "joint"
STAKES = 2.0
"""How much more right words bring than wrong ones cost, so that doubt counts for the words; 1 and 2 do alike on training people
(docs/numbers.md)."""
UNFIT = 0.5
"""Below this trust the words are said not to fit."""
_KINDS = ("picture", "caption", "attributes")
_PRIORS = (0.005, 0.995)


@dataclass(frozen=True, kw_only=True)
class TextTrust:
    """What agreement of words and picture is worth for one model; made by `calibrate`, stored with the run.

    Attributes:
        infrared, text, caption: (D,) means of unit embeddings, which tell nothing about a person and are taken off.
        slots: attribute -> log-odds of (clash, agreement) for words that fit.
        both: bias and factor of each kind of evidence, in log-odds.
        picture: the same where the infrared picture has no caption.
        people: training people that it was learned on.
        weights_sha256: of the model.
        how, stakes: see `trust`.
    """

    infrared: Sequence[float]
    text: Sequence[float]
    caption: Sequence[float]
    slots: Mapping[str, Sequence[float]]
    both: Sequence[float]
    picture: Sequence[float]
    people: int
    weights_sha256: str
    how: str = SINGLE
    stakes: float = STAKES

    @property
    def note(self) -> str:
        """For protocol cards."""
        people = f"learned on {self.people} training people"
        return f"the ensemble weighs words by how well they fit (TEST.TEXT_TRUST {self.how}, {people})"

    def log_odds(
        self, infrared: np.ndarray, text: np.ndarray, caption: np.ndarray | None, said: Sequence[str], seen: Sequence[str]
    ) -> np.ndarray:
        """(Q,) how much more likely the evidence is if the words fit.

        Args:
            infrared, text, caption: (Q, D) unit embeddings of picture, words and the picture's caption; None without one.
            said, seen: Q words and captions.
        """
        picture = _cosines(infrared - np.asarray(self.infrared), text - np.asarray(self.text))
        if caption is None:
            found = self.picture[0] + self.picture[1] * picture
        else:
            captions = _cosines(caption - np.asarray(self.caption), text - np.asarray(self.text))
            named = np.array([attribute_odds(*pair, self.slots) for pair in zip(said, seen, strict=True)])
            found = np.stack([np.ones(len(text)), picture, captions, named], axis=1) @ np.asarray(self.both)
        # Without words there is nothing to trust.
        return np.where([bool(words.strip()) for words in said], found, -np.inf)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str) -> Self:
        """Of parsed JSON; raises ValueError with `where` if it is something else."""
        missing = [one.name for one in dataclass_fields(cls) if one.default is MISSING and one.name not in fields]
        if missing or len(fields["both"]) != 1 + len(_KINDS) or len(fields["picture"]) != 2:
            raise ValueError(f"{where} is no calibration of trust in words; evaluate with TEST.TEXT_TRUST to write one.")
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    @classmethod
    def load(cls, file: Path, weights: str) -> Self | None:
        """A stored calibration, None where there is none or it is of other weights."""
        if not file.is_file():
            return None
        found = cls.from_dict(expect_object(read_json(file), str(file)), str(file))
        return found if found.weights_sha256 == weights else None

    def save(self, file: Path) -> None:
        """All or nothing."""
        write_text(file, json.dumps(asdict(self)) + "\n")


def trust(log_odds: np.ndarray, how: str = SINGLE, stakes: float = STAKES) -> np.ndarray:
    """(Q,) weights in [0, 1]: the odds that each query's words fit it, times the stakes, as a share.

    Args:
        log_odds: (Q,), see `TextTrust.log_odds`.
        how: "single": words are right as often as wrong, and no query looks at another; "joint": as often as the evidence of
            the Q queries together says.
        stakes: how much more right words bring than wrong ones cost.
    """
    prior = _prior(log_odds) if how == JOINT else 0.5
    return _sigmoid(log_odds + np.log(stakes * prior / (1 - prior)))


def _prior(log_odds: np.ndarray, steps: int = 200) -> float:
    prior = 0.5
    for _ in range(steps):
        prior = float(np.clip(_sigmoid(log_odds + np.log(prior / (1 - prior))).mean(), *_PRIORS))
    return prior


def attribute_odds(said: str, seen: str, slots: Mapping[str, Sequence[float]]) -> float:
    """The sum of the log-odds of every attribute that two texts both name."""
    return sum(slots[slot][agree] for slot, agree in agreement(said, seen).items() if slot in slots)


def agreement(said: str, seen: str) -> dict[str, bool]:
    """Attribute that both texts name -> whether they name the same; colours, which infrared does not show, are left out."""
    first, second = _named(said), _named(seen)
    return {slot: bool(first[slot] & second[slot]) for slot in first.keys() & second.keys()}


@lru_cache(maxsize=1 << 16)
def _named(text: str) -> dict[str, set[str]]:
    values: dict[str, set[str]] = {}
    for slot, value in read(text).facts():
        if not slot.endswith("_colour"):
            values.setdefault(slot, set()).add(value.split()[-1] if "_" in slot else value)
    return values


# --- calibration ------------------------------------------------------------------------------------------------------


def calibrate(
    infrared: np.ndarray,
    text: np.ndarray,
    caption: np.ndarray,
    said: Sequence[str],
    seen: Sequence[str],
    pids: np.ndarray,
    *,
    weights: str = "",
    seed: int = 0,
) -> TextTrust:
    """Learn what agreement is worth from N pictures of training people, each with words of its person.

    Every picture is also given the words of another person; a logistic regression on the evidence tells the two apart.

    Args:
        infrared, text, caption: (N, D) unit embeddings of pictures, words and the pictures' captions.
        said, seen: N words and captions.
        pids: (N,) who it is.
        weights: hash of the model.
        seed: of the choice of other people.
    """
    if len(np.unique(pids)) < 2:
        raise ValueError("Trust in words is learned by comparing people: training pictures of two or more are needed.")
    order = np.random.RandomState(seed).permutation(len(pids))
    others = np.array([next(j for j in np.roll(order, -n) if pids[j] != pids[n]) for n in range(len(pids))])
    pairs = [(said[n], seen[n]) for n in range(len(pids))], [(said[m], seen[n]) for n, m in enumerate(others)]
    slots = _slot_odds(*pairs)
    means = [rows.mean(axis=0) for rows in (infrared, text, caption)]
    seen_in, words, captions = (rows - mean for rows, mean in zip((infrared, text, caption), means, strict=True))
    rows = []
    for taken, texts in zip((np.arange(len(pids)), others), pairs, strict=True):
        named = [attribute_odds(*pair, slots) for pair in texts]
        rows.append(np.stack([_cosines(seen_in, words[taken]), _cosines(captions, words[taken]), named], axis=1))
    evidence, right = np.concatenate(rows), np.repeat([1.0, 0.0], len(pids))
    return TextTrust(
        infrared=means[0].tolist(), text=means[1].tolist(), caption=means[2].tolist(), slots=slots,
        both=_logistic(evidence, right).tolist(), picture=_logistic(evidence[:, :1], right).tolist(),
        people=len(np.unique(pids)), weights_sha256=weights,
    )  # fmt: skip


def _slot_odds(fitting: Sequence[tuple[str, str]], wrong: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    counts: dict[str, np.ndarray] = {}
    for kind, pairs in enumerate((wrong, fitting)):
        for pair in pairs:
            for slot, agree in agreement(*pair).items():
                counts.setdefault(slot, np.ones((2, 2)))[kind, int(agree)] += 1
    shares = {slot: table / table.sum(axis=1, keepdims=True) for slot, table in sorted(counts.items())}
    return {slot: np.log(share[1] / share[0]).tolist() for slot, share in shares.items()}


def _logistic(evidence: np.ndarray, right: np.ndarray, ridge: float = 1e-3, steps: int = 50) -> np.ndarray:
    """(1 + E,) bias and factors of a logistic regression on (N, E), by Newton's method."""
    rows = np.concatenate([np.ones((len(evidence), 1)), evidence], axis=1)
    found = np.zeros(rows.shape[1])
    for _ in range(steps):
        expected = _sigmoid(rows @ found)
        slope = rows.T @ (right - expected) - ridge * found
        curve = (rows * (expected * (1 - expected))[:, None]).T @ rows + ridge * np.eye(len(found))
        found = found + np.linalg.solve(curve, slope)
    return found


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.divide((first * second).sum(axis=1), length, out=np.zeros(len(first)), where=length > 0)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))
