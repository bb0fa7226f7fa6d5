"""What an audit counts, and over which images."""

from dataclasses import dataclass, field

EXAMPLES = 5
"""How many texts or identities a finding names."""


@dataclass
class Finding:
    """One measurement: its key in the JSON report and `--fail-on`, how many of how many, some texts or identities."""

    key: str
    count: int
    of: int
    meaning: str
    examples: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """count / of; 0 where there is nothing."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True)
class Subject:
    """One image of the audited data set: its caption's key, its person, its part of the protocol, and its camera if known."""

    key: str
    pid: int
    train: bool
    gallery: bool = False
    camera: str = ""
