"""How processes share a CPU limit: what computes slows down, what waits does not, and no work gets lost."""

from collections.abc import Sequence

PERIODS = 10.0
"""Scheduling periods in a second, as the kernel counts them for a container with a CPU limit."""

_HALVINGS = 24


def rate(share: float, speed: float) -> float:
    """Speed of a process that computes in a `share` of its time, where computing has `speed` of its full one."""
    return 1.0 / ((1.0 - share) + share / speed)


def factor(always: float, shares: Sequence[float], cores: float | None) -> float:
    """Speed of computing, 1 where the limit is not reached; `always` is what the container's own upkeep takes."""
    if cores is None or always + sum(shares) <= cores:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        used = always * middle + sum(share * rate(share, middle) for share in shares if share)
        low, high = (middle, high) if used < cores else (low, middle)
    return high


def throttled(demand: float, cores: float | None, begins: float) -> float:
    """Share of the periods in which the limit is hit, for a mean demand: none from `begins` of it down."""
    if cores is None:
        return 0.0
    return min(max((demand / cores - begins) / (2 * (1 - begins)), 0.0), 1.0)
