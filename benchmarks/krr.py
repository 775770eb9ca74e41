"""KRR's strategy `simple` for memory: the largest of two weeks, with a margin; request and limit are the same."""

import math
from collections.abc import Iterable

MI = 2**20
BUFFER = 1.15
HISTORY = 14
"""Days."""

FLOOR = 100_000_000
POINTS = 100
"""Samples that it needs at least."""


def recommended(peaks: Iterable[float]) -> int:
    """Bytes for a workload whose pods had these largest working sets."""
    return math.ceil(max(max(peaks) * BUFFER, FLOOR) / MI) * MI
