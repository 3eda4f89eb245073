"""A figure, and how it is printed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

_FEW = 100


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`ours` and `theirs` are the samples, one a turn, in `unit`; the ratio is ours to theirs, by their medians."""

    name: str
    how: str
    asked: str
    is_reached: Callable[[float], bool]
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str

    @property
    def ratio(self) -> float:
        """Ours to theirs."""
        return median(self.ours) / median(self.theirs)

    def row(self) -> str:
        """A row of the table of results."""
        verdict = "" if self.is_reached(self.ratio) else " (not reached)"
        columns = (self.name, f"{self.ratio:.3g}", self.asked + verdict, self._told(self.ours), self._told(self.theirs))
        return f"| {' | '.join(columns)} |"

    def _told(self, samples: Sequence[float]) -> str:
        digits = 2 if max(samples) < _FEW else 0
        middle, low, high = (f"{each:,.{digits}f}" for each in (median(samples), min(samples), max(samples)))
        return f"{middle} {self.unit} ({low} to {high})"
