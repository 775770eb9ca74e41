"""Google Autopilot's rules for memory (EuroSys 2020): the maximum, and the 98th percentile, of decaying samples.

Not checked against a source: half-life, margin and the maximum of the last hour are from memory of the paper.
"""

import math
from collections import deque
from dataclasses import dataclass, field

HALF_LIFE = 48.0
"""Hours."""

MARGIN = 1.10
HISTORY = 14
"""Days of hours that are kept: at such an age a sample weighs less than one in a hundred."""

STEP = 1.05
"""Between two buckets."""


@dataclass(slots=True)
class Hours:
    """Peaks of all workers in five minutes each, in buckets, by hour."""

    _hours: deque[dict[int, int]] = field(default_factory=lambda: deque(maxlen=HISTORY * 24))

    def begin(self) -> None:
        """An hour begins."""
        self._hours.append({})

    def add(self, size: float) -> None:
        """A peak."""
        number = math.ceil(math.log(max(size, 1.0)) / math.log(STEP))
        self._hours[-1][number] = self._hours[-1].get(number, 0) + 1

    def largest(self) -> float:
        """The maximum rule."""
        return MARGIN * max((STEP**number for hour in self._hours for number in hour), default=0.0)

    def percentile(self, share: float) -> float:
        """The rule for jobs that bear kills."""
        weights: dict[int, float] = {}
        for age, hour in enumerate(reversed(self._hours)):
            weight = 0.5 ** (age / HALF_LIFE)
            for number, count in hour.items():
                weights[number] = weights.get(number, 0.0) + weight * count
        total, partial = sum(weights.values()), 0.0
        for number in sorted(weights):
            partial += weights[number]
            if partial >= share * total:
                return MARGIN * STEP**number
        return 0.0
