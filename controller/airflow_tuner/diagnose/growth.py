"""Whose memory only ever grows: a leak, which no limit is large enough for."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_tuner import api, decide, leak, signals
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Pod, Sample, Severity
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import counted, short

WARM_UP = timedelta(hours=1)
"""After its start a container grows for good reasons: imports, caches, processes that are forked."""

LEAST = 1 * MEBIBYTE
"""Bytes per hour from which a rise is no noise. An Airflow 3.1 scheduler that idles has been reported to leak 4.5 MiB/h
(apache/airflow issue 58509); less than this takes more than a week for 168 MiB."""

WEEK = timedelta(days=7)
"""A rise seen over days is told where the limit is reached within this time: slower ones seldom outlive
a deployment."""

SOON = timedelta(hours=12)
"""The same for one seen over hours: as it may still come to rest, it is told only where nobody can wait for a day."""

TWO_DAYS = timedelta(days=2)

LONGEST = 1e6
"""Hours beyond which nobody counts."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to see a rise."""

    name: str
    """Of the part of the signal."""
    hours: int
    """What it looks back for."""
    within: timedelta
    """Told where the limit is reached within this time."""
    told: str
    of_workers: bool = True
    """Also where tasks run: memory follows them for half a day at a time."""
    of_slots: bool = True
    """A change of slots may look like it."""


_SIX, _FIVE = signals.LEAK_SPANS["growth_days"]
_ONE, _MANY = signals.LEAK_SPANS["growth_hours"]
_WINDOW = 24 // signals.LEAK_WINDOWS

# The first floor is that of a window of its own.
WAYS = (
    _Way("growth_days", _SIX * (_FIVE + 1), WEEK, f"the least of each {_SIX} hours, over {_SIX * _FIVE} h"),
    _Way(
        "growth_by_day",
        24 * (signals.LEAK_DAYS + 1) + _WINDOW,
        WEEK,
        f"the least of each {_WINDOW} hours against those of the day before, for {signals.LEAK_DAYS} days",
        # Slots that follow the hours do so on both days.
        of_slots=False,
    ),
    _Way(
        "growth_hours",
        _ONE * (_MANY + 1),
        SOON,
        f"the least of each hour, over {_ONE * _MANY} h",
        of_workers=False,
    ),
)


@dataclass(frozen=True, slots=True)
class _Rise:
    """A container whose floor of anonymous memory rises."""

    pod: Pod
    pace: float
    """Bytes per hour."""
    held: float
    """Most anonymous memory it held within a day, in bytes."""
    limit: int | None
    way: _Way

    @property
    def left(self) -> timedelta | None:
        """Time until its largest memory reaches the limit at that pace; `None` where there is no limit."""
        if self.limit is None:
            return None
        return timedelta(hours=min(LONGEST, max(0.0, (self.limit - self.held) / self.pace)))


def memory_leak_suspected(case: Case) -> Iterator[Finding]:
    """Anonymous memory that rises evenly, window by window, towards the limit."""
    for item in case.items:
        rises = [rise for pod in item.workload.living if (rise := _rise(item, pod, case.seen.at)) is not None]
        if rises:
            worst = min(rises, key=lambda rise: timedelta.max if rise.left is None else rise.left)
            yield Finding(
                "MemoryLeakSuspected", Severity.WARNING, item.workload.target, _told(item, rises, worst), case.seen.at
            )


def _rise(item: decide.Item, pod: Pod, now: datetime) -> _Rise | None:
    """How it rises, by the first way that shows it."""
    for way in WAYS:
        sample: Sample | None = getattr(pod.usage, way.name)
        since = now - timedelta(hours=way.hours)
        changed = item.past.slots_changed
        if sample is None or pod.started is None or pod.started > since - WARM_UP:
            continue
        if _runs_tasks(item) and not way.of_workers:
            continue
        if way.of_slots and changed is not None and changed > since:
            continue
        largest = max((one.value for one in (pod.usage.anonymous, pod.usage.anonymous_day) if one), default=None)
        pace = sample.value * signals.HOUR
        if largest is None or pace < LEAST:
            continue
        rise = _Rise(pod, pace, largest, (pod.running or pod.memory).limit, way)
        if rise.left is None or rise.left <= way.within or leak.much(pod, now):
            return rise
    return None


def _runs_tasks(item: decide.Item) -> bool:
    """Workers do; where there are none, a scheduler may (LocalExecutor)."""
    components = {workload.component for workload in item.seen.workloads}
    runs = item.seen.executors
    in_schedulers = runs.local if runs else "worker" not in components
    return item.workload.component == "worker" or (item.workload.component == "scheduler" and in_schedulers)


def _told(item: decide.Item, rises: list[_Rise], worst: _Rise) -> str:
    workload = item.workload
    end = "It has no limit: it takes the node's memory."
    if worst.limit is not None and worst.left is not None:
        left = (
            f"{worst.left / timedelta(hours=1):.0f} h"
            if worst.left < TWO_DAYS
            else f"{worst.left / timedelta(days=1):.0f} days"
        )
        end = f"At that pace its limit of {readable(worst.limit)} is reached in {left}."
    return (
        f"Anonymous memory of {len(rises)} of {counted(len(workload.living), 'pod', 'pods')} of "
        f"{short(workload.label)} rises evenly by {worst.pace / MEBIBYTE:.1f} MiB/h and does not come back "
        f"({worst.way.told}), e.g. {short(worst.pod.name)}, which held "
        f"{readable(int(worst.held))} at most. {end} A larger limit only puts that off: none is given for it, only for "
        f"a kill. {_advice(item)}"
    )


def _advice(item: decide.Item) -> str:
    """What helps until the leak is found, and who does it."""
    is_worker = item.workload.component == "worker"
    cure = "Let Celery renew its processes (worker_max_tasks_per_child)." if is_worker else "Look for a newer Airflow."
    if item.spec.mode is api.Mode.ENFORCE and item.spec.changes.restarts.allowed:
        return (
            f"{cure} What two days have shown to have leaked {readable(leak.MUCH)}, and {leak.MUCH_OF_LIMIT:.0%} of "
            "its limit, is restarted, one at a time, as spec.changes.restarts says."
        )
    return (
        f"{cure} Until then restart in a quiet hour what has leaked most, or let airflow-tuner do it "
        "(spec.changes.restarts.allowed)."
    )
