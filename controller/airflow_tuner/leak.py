"""What of a container's memory is leaked: it rises evenly and does not come back. Pure."""

from datetime import datetime

from airflow_tuner.model import Pod, Sample
from airflow_tuner.quantity import MEBIBYTE

FROM = 2 * MEBIBYTE / 3600
"""Bytes per second from which memory that rises evenly is no demand."""

MUCH = 300 * MEBIBYTE
"""Bytes that are worth a restart (from a simulation: 18 restarts in three weeks of twenty workers that leak)."""

MUCH_OF_LIMIT = 0.1
"""Share of the limit from which it is, where that is more."""


def pace(pod: Pod) -> float:
    """Bytes per second by which its memory rises evenly; 0 where that is too little to tell."""
    # Over hours alone a day's load rises as evenly.
    told = pod.usage.growth_days or pod.usage.growth_by_day
    return told.value if told is not None and told.value >= FROM else 0.0


def leaked(pod: Pod, now: datetime) -> float:
    """Bytes that it has leaked since it started."""
    return 0.0 if pod.started is None else pace(pod) * max(0.0, (now - pod.started).total_seconds())


def without(sample: Sample | None, pod: Pod, now: datetime) -> float | None:
    """What it held, without what it has leaked since it started: that is no demand.

    `None`: it is not known. So it is, too, where it cannot have leaked like this since its start.
    """
    if sample is None:
        return None
    left = sample.value - leaked(pod, now)
    return left if left > 0 else None


def much(pod: Pod, now: datetime) -> bool:
    """It has leaked so much that a restart is worth it."""
    limit = (pod.running or pod.memory).limit or 0
    possible = without(pod.usage.anonymous, pod, now) is not None
    return possible and leaked(pod, now) > max(MUCH, MUCH_OF_LIMIT * limit)
