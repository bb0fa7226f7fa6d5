"""An evaluation shared among processes: each ranks some of the gallery draws and texts."""

from collections.abc import Callable, Sequence
from typing import Any

from tvilfm_plugin.evaluation.mer import Trial
from tvilfm_plugin.evaluation.stored import StoredEvaluation


class Turns:
    """Whose turn it is: rankings go round the processes; `gather` gives the main one all objects, the others an empty list."""

    def __init__(self, rank: int, world: int, gather: Callable[[Any], Sequence[Any]]) -> None:
        self.rank, self.world, self.gather = rank, world, gather
        self._given = 0

    def trials(self, stored: StoredEvaluation, setting: str, source: str) -> dict[str, list[list[Trial]]]:
        """What `stored.trials(setting, source)` returns, in the main process; nothing in the others."""
        if self.world == 1:
            return stored.trials(setting, source)
        seeds, draws = stored.seeds(setting, source), range(len(stored.draws[setting]))
        mine: list[tuple[int, Trial]] = []
        for number in range(max(1, len(seeds))):
            own = [draw for draw in draws if (self._given + draw) % self.world == self.rank]
            self._given += len(draws)
            if own:
                found = stored.trials(setting, source, seeds=seeds[number : number + 1], draws=own)
                mine += [(number, trial) for runs in found.values() for trial in runs[0]]
        everybody = [one for share in self.gather(mine) for one in share]
        everybody.sort(key=lambda one: (one[0], one[1].draw))
        names = [kind.name for kind in stored.types(source)] if everybody else []
        by_seed = lambda name, number: [trial for at, trial in everybody if at == number and trial.query_type == name]
        return {name: [by_seed(name, number) for number in range(max(1, len(seeds)))] for name in names}
