"""What of a container's memory is leaked: it rises evenly and does not come back. Pure."""

from dataclasses import replace
from datetime import datetime

from airflow_tuner.history import SECONDS, History, hour_of
from airflow_tuner.model import Pod, Sample, Workload
from airflow_tuner.quantity import MEBIBYTE

FROM = 2 * MEBIBYTE / 3600
"""Bytes per second from which memory that rises evenly is no demand."""

MUCH = 300 * MEBIBYTE
"""Bytes that are worth a restart (from a simulation: 18 restarts in three weeks of twenty workers that leak)."""

MUCH_OF_LIMIT = 0.1
"""Share of the limit from which it is, where that is more."""


KEPT = 72
"""Hours for which a leak is remembered that cannot be seen: on days whose slots differ from those before."""

SEEN = 12
"""Of these hours so many must have shown it."""


def pace(pod: Pod) -> float:
    """Bytes per second by which its memory rises evenly; 0 where that is too little to tell."""
    told = _shown(pod)
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


def noted(workload: Workload, history: History, now: datetime) -> History:
    """With the pace that is seen now, if one is."""
    fastest = max((pace(pod) for pod in workload.living), default=0.0)
    return history.noted(hour_of(now), round(fastest * SECONDS / 1024)) if fastest else history


def remembered(workload: Workload, history: History, now: datetime) -> Workload:
    """With the pace of a leak that was seen lately in those pods that were there then and do not show it now."""
    hour = hour_of(now)
    known = [one for one in range(hour - KEPT, hour + 1) if history.at(one)]
    if len(known) < SEEN:
        return workload
    least = min(history.at(one) or 0 for one in known) * 1024 / SECONDS

    def told(pod: Pod) -> Pod:
        usage = pod.usage
        if _shown(pod) or usage.anonymous is None or pod.started is None or hour_of(pod.started) >= known[-1]:
            return pod
        return replace(pod, usage=replace(usage, growth_by_day=Sample(least, now)))

    return replace(workload, pods=tuple(told(pod) for pod in workload.pods))


def much(pod: Pod, now: datetime) -> bool:
    """It has leaked so much that a restart is worth it, as two days have shown: a day and a half may rise by chance."""
    limit = (pod.running or pod.memory).limit or 0
    known = pod.usage.growth_by_day is not None and without(pod.usage.anonymous, pod, now) is not None
    return known and leaked(pod, now) > max(MUCH, MUCH_OF_LIMIT * limit)


def _shown(pod: Pod) -> Sample | None:
    """The rise that is seen; over hours alone a day's load rises as evenly."""
    return pod.usage.growth_days or pod.usage.growth_by_day
