"""What a statsd exporter keeps and shows: gauges that outlive their senders, counters, and summaries in seconds."""

import math
from collections import deque
from collections.abc import Callable

Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, dict[str, str], float]
Wanted = Callable[[str], bool]
"""Whether a series of that name is to be shown."""

QUANTILES = (0.5, 0.9, 0.99)
MAX_AGE = 600.0
"""Seconds that a value counts into the quantiles."""

OFTEN = 64
"""Values after which the old ones are forgotten, where nobody asks."""


class Summary:
    """The timer values of one series."""

    def __init__(self) -> None:
        self.count, self.sum = 0, 0.0
        self._recent: deque[tuple[float, float]] = deque()

    def add(self, seconds: float, now: float) -> None:
        """One more value."""
        self.count += 1
        self.sum += seconds
        self._recent.append((now, seconds))
        if self.count % OFTEN == 0:
            self._forget(now)

    def quantiles(self, now: float) -> dict[float, float]:
        """Of what is recent; not a number where nothing is."""
        self._forget(now)
        values = sorted(value for _, value in self._recent)
        if not values:
            return dict.fromkeys(QUANTILES, math.nan)
        return {quantile: values[min(int(quantile * len(values)), len(values) - 1)] for quantile in QUANTILES}

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] <= now - MAX_AGE:
            self._recent.popleft()


class Statsd:
    """All series, by name and labels."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Labels], float] = {}
        self._summaries: dict[tuple[str, Labels], Summary] = {}

    def gauge(self, name: str, value: float, *labels: tuple[str, str]) -> None:
        """Set a gauge."""
        self._values[name, labels] = value

    def count(self, name: str, number: float = 1, *labels: tuple[str, str]) -> None:
        """Add to a counter."""
        key = (name, labels)
        self._values[key] = self._values.get(key, 0.0) + number

    def time(self, name: str, seconds: float, now: float, *labels: tuple[str, str]) -> None:
        """Take a timer value."""
        key = (name, labels)
        if key not in self._summaries:
            self._summaries[key] = Summary()
        self._summaries[key].add(seconds, now)

    def samples(self, now: float, wanted: Wanted | None = None) -> list[Sample]:
        """Everything, as a scrape would find it, or what has a name that is wanted."""
        wants = wanted or (lambda _: True)
        found: list[Sample] = [
            (name, dict(labels), value) for (name, labels), value in self._values.items() if wants(name)
        ]
        for (name, labels), summary in self._summaries.items():
            if wants(name):
                for quantile, value in summary.quantiles(now).items():
                    found.append((name, {**dict(labels), "quantile": f"{quantile:g}"}, value))
            for part, value in (("sum", summary.sum), ("count", float(summary.count))):
                if wants(f"{name}_{part}"):
                    found.append((f"{name}_{part}", dict(labels), value))
        return found
