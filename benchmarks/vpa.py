"""The recommender of the VerticalPodAutoscaler (1.7.1), memory only, and its updater in mode InPlaceOrRecreate.

Ported from kubernetes/autoscaler, vertical-pod-autoscaler/pkg/recommender: `util/histogram.go`,
`util/decaying_histogram.go`, `model/container.go`, `logic/estimator.go`, with the flags' defaults. Sizes are bytes,
times seconds. The updater (`controllers.Vpa`) is simpler than the real one: one eviction at a time, no rate limit and
no PodDisruptionBudget.
"""

import math
from dataclasses import dataclass, field

DAY = 86400.0
RATIO = 1.05
FIRST = 1e7
"""Size of the first bucket."""

LARGEST = 1e12
HALF_LIFE = DAY
INTERVAL = DAY
"""One peak of each container counts in so much time."""

MARGIN = 1.15
FLOOR = 250 * 2**20
"""Of a pod with one container."""

TARGET, LOWER, UPPER = 0.9, 0.5, 0.95
OOM_RATIO = 1.2
OOM_LEAST = 100 * 2**20
_BUCKETS = math.ceil(math.log(LARGEST * (RATIO - 1) / FIRST + 1) / math.log(RATIO)) + 1


def bucket(value: float) -> int:
    """Of a value."""
    if value < FIRST:
        return 0
    return min(int(math.log(value * (RATIO - 1) / FIRST + 1) / math.log(RATIO)), _BUCKETS - 1)


def start(number: int) -> float:
    """Where a bucket begins."""
    return 0.0 if number == 0 else FIRST * (RATIO**number - 1) / (RATIO - 1)


@dataclass(slots=True)
class Histogram:
    """Weights that decay."""

    weights: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS)
    _reference: float = 0.0

    def add(self, value: float, at: float, weight: float = 1.0) -> None:
        """A sample; a negative weight takes one back."""
        if (at - self._reference) / HALF_LIFE > 100:  # noqa: PLR2004 - before the numbers grow too large, as there
            shift = round((at - self._reference) / HALF_LIFE)
            self._reference += shift * HALF_LIFE
            self.weights = [one * 2.0**-shift for one in self.weights]
        number = bucket(value)
        self.weights[number] = max(0.0, self.weights[number] + weight * 2 ** ((at - self._reference) / HALF_LIFE))

    def percentile(self, share: float) -> float:
        """The end of the bucket that holds it."""
        total = sum(self.weights)
        if not total:
            return 0.0
        partial = 0.0
        last = max(number for number, weight in enumerate(self.weights) if weight)
        for number in range(last + 1):
            partial += self.weights[number]
            if partial >= share * total or number == last:
                return start(number + 1) if number < _BUCKETS - 1 else start(number)
        return 0.0


@dataclass(slots=True)
class Container:
    """One container's peaks of the present interval."""

    histogram: Histogram
    _ends: float | None = None
    _peak: float = 0.0
    _oom_peak: float = 0.0

    def sample(self, usage: float, at: float, *, oom: bool = False) -> None:
        """One sample of memory."""
        if self._ends is None:
            self._ends = at
        if at < self._ends:
            old = max(self._peak, self._oom_peak)
            if not old or usage <= old:
                return
            self.histogram.add(old, self._ends, -1.0)
        else:
            self._ends += (at - self._ends) // INTERVAL * INTERVAL + INTERVAL
            self._peak = self._oom_peak = 0.0
        self.histogram.add(usage, self._ends)
        if oom:
            self._oom_peak = usage
        else:
            self._peak = usage

    def killed(self, request: float, at: float) -> None:
        """It was killed for memory."""
        if self._ends is not None and at < self._ends - INTERVAL:
            return
        used = max(request, self._peak)
        self.sample(max(used + OOM_LEAST, used * OOM_RATIO), at, oom=True)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Bytes."""

    target: float
    lower: float
    upper: float


def recommended(histogram: Histogram, days: float) -> Recommendation:
    """What it recommends after so many days of history."""

    def with_margin(share: float) -> float:
        return histogram.percentile(share) * MARGIN

    days = max(days, 1e-9)
    return Recommendation(
        max(FLOOR, with_margin(TARGET)),
        max(FLOOR, with_margin(LOWER) * (1 + 0.001 / days) ** -2),
        max(FLOOR, with_margin(UPPER) * (1 + 1 / days)),
    )
