"""Do the limits fit what the containers hold: slots that do not fit, too little room, or page cache that only seems so.

All before anybody has died of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from airflow_tuner import api, decide, local, quantity, steps, workgroup
from airflow_tuner.diagnose import memory
from airflow_tuner.diagnose.case import Case
from airflow_tuner.footprint import NEEDS_MORE, Footprint, footprint
from airflow_tuner.model import Finding, Memory, Pod, Severity, Workload
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import counted, short

NEAR = 0.9
"""Share of the limit from which there is little room: a tenth of 2 GiB is two tasks that hold nothing of their own, and
from 0.95 on a container counts as having reached its limit."""

FAR = 0.6
"""Share of the limit up to which anonymous memory is far from it: with half as much again it is still not near."""

WIDE = 2.0
"""Times what would do that a request is too large from: twice leaves room for a week's peak that no day shows."""

LOOSE = 4.0
"""The same for a limit: it reserves nothing, and lets the containers of a node promise more than there is."""

WORTH = 512 * MEBIBYTE
"""Least memory of a pod that is worth a word."""

MARGIN = 1.25
"""On the largest memory of a day."""

KNOWN = timedelta(days=1)
"""Most loads have a daily peak: a container that was seen for less says nothing about what is too much."""

ANSWERED = timedelta(days=7)
"""For this long after an answer to a kill nothing is said to be too much: many loads have a weekly peak."""


def concurrency_exceeds_memory(case: Case) -> Iterator[Finding]:
    """A worker's slots, were all of them busy, need more memory than its limit."""
    for item in case.items:
        workload = item.workload
        # What a slot takes differs by Airflow line: where that is not known, nothing is claimed.
        if workload.component != "worker" or case.seen.line is None or not case.seen.executors.celery:
            continue
        pods = [(pod, slots) for pod in _limited(item) if (slots := workgroup.in_force(pod, workload))]
        law = _law(item, pods, case.seen.line)
        tight = _tight(law, pods)
        known = law.tail > steps.PROBE_SPIKE and case.told_before("ConcurrencyExceedsMemory", workload.target)
        if not tight and not law.measured and known:
            # While workers idle no slot can be measured: the day's largest stands until it is past.
            law = replace(law, tail=law.tail + steps.PROBE_SPIKE)
            tight = _tight(law, pods)
        if tight:
            pod, slots = max(tight, key=lambda one: law.need(one[1]) - _limit(one[0]))
            limit = _limit(pod)
            yield Finding(
                "ConcurrencyExceedsMemory",
                Severity.WARNING,
                workload.target,
                f"{counted(slots, 'slot does', 'slots do')} not fit the memory limit of {readable(limit)} in "
                f"{len(tight)} of {counted(len(pods), 'pod', 'pods')} of {short(workload.label)}, e.g. "
                f"{short(pod.name)}: with all busy they need {law.told(slots, 0)}"
                f"{' (a slot as measured here)' if law.measured else ''}. {_carried(law, limit, slots)} "
                f"{_upon_kill(item, limit, slots)}",
                case.seen.at,
            )


def _tight(law: Footprint, pods: Sequence[tuple[Pod, int]]) -> list[tuple[Pod, int]]:
    """Those whose slots do not fit."""
    return [(pod, slots) for pod, slots in pods if law.need(slots) > _limit(pod)]


def page_cache_not_demand(case: Case) -> Iterator[Finding]:
    """The working set is near the limit, and what is held is not: the difference is page cache."""
    for item in case.items:
        full = []
        for pod in _limited(item):
            usage, limit = pod.usage, _limit(pod)
            if usage.working_set is None or usage.anonymous_day is None:
                continue
            if usage.working_set.value >= NEAR * limit and usage.anonymous_day.value <= FAR * limit:
                full.append((usage.working_set.value / limit, pod, usage.anonymous_day.value))
        if full:
            share, pod, held = max(full, key=lambda one: one[0])
            limit, peak, workload = _limit(pod), pod.usage.peak, item.workload
            high = "" if peak is None else f" (at most {readable(int(peak.value))} with all of its page cache)"
            yield Finding(
                "PageCacheNotDemand",
                Severity.INFO,
                workload.target,
                f"The working set of {_of(full, workload)} came near the limit within a day, and much of it was page "
                f"cache: e.g. {short(pod.name)} had {readable(int(share * limit))}{high} of {readable(limit)}, of "
                f"which it held at most {readable(int(held))} itself. The kernel gives page cache back before it "
                "kills: nothing is raised for it.",
                case.seen.at,
            )


def memory_headroom_low(case: Case) -> Iterator[Finding]:
    """Anonymous memory came near the limit, and nobody was killed yet."""
    for item in case.items:
        if memory.killed(item.workload, case.seen.at):
            continue
        tight = [(held / _limit(pod), pod) for pod in _limited(item) if (held := _held(pod)) is not None]
        tight = [(share, pod) for share, pod in tight if share >= NEAR]
        if tight:
            share, pod = max(tight, key=lambda one: one[0])
            limit, workload = _limit(pod), item.workload
            large = ", or give large tasks a queue of their own" if workload.component == "worker" else ""
            yield Finding(
                "MemoryHeadroomLow",
                Severity.WARNING,
                workload.target,
                f"{_of(tight, workload)} held {NEAR:.0%} of the memory limit or more within a day, page cache not "
                f"counted: e.g. {short(pod.name)} {readable(int(share * limit))} of {readable(limit)} ({share:.0%}). "
                f"What takes {readable(max(0, int((1 - share) * limit)))} more is killed. "
                f"{_upon_kill(item, limit, workgroup.in_force(pod, workload))} To be spared that, raise the limit in "
                f"the template{large}.",
                case.seen.at,
            )


def memory_overprovisioned(case: Case) -> Iterator[Finding]:
    """Request or limit are far above what was needed within a whole day."""
    for item in case.items:
        workload, now = item.workload, case.seen.at
        raised = item.past.raised
        if memory.killed(workload, now) or (raised is not None and now - raised.at < ANSWERED):
            continue
        largest = [_day(pod, now) for pod in workload.living]
        held = [size for size in largest if size is not None]
        if not held or len(held) < len(largest):
            continue
        enough = item.bounds.hold(Memory(limit=_enough(item, max(held), case.seen.line))).limit or 0
        inforce = [pod.running or pod.memory for pod in workload.living]
        request = min((one.request for one in inforce if one.request is not None), default=0)
        limit = min((one.limit for one in inforce if one.limit is not None), default=0)
        wide = request > WIDE * enough and request - enough >= WORTH
        if wide or (limit > LOOSE * enough and limit - enough >= WORTH):
            freed = (
                f"A request of that size would free {readable((request - enough) * len(held))} on the nodes."
                if wide
                else "The request is not too large; such a limit lets a pod take what its node has promised to others."
            )
            yield Finding(
                "MemoryOverprovisioned",
                Severity.INFO,
                workload.target,
                f"{counted(len(held), 'pod', 'pods')} of {short(workload.label)} held at most "
                f"{readable(int(max(held)))} within a day, page cache not counted: {readable(enough)} would do. The "
                f"request is {readable(request)}, the limit {readable(limit) if limit else 'none'}. {freed} "
                f"{_given(item)}",
                now,
            )


def _given(item: decide.Item) -> str:
    """What the operator does about it, and what it waits for."""
    if item.spec.mode is api.Mode.RECOMMEND:
        return "In mode Recommend the operator changes nothing: what it would set is among its recommendations."
    if not item.spec.changes.releases:
        return "The operator lowers no memory, as changes.releases of the policy is false."
    waits = item.sizing.hold or "It waits for a forecast from a week of hourly peaks."
    return f"The operator releases what the coming hours do not take. {waits}"


def _day(pod: Pod, now: datetime) -> float | None:
    """Most anonymous memory within a day, in bytes; `None` where that day is not known in full."""
    usage = pod.usage
    seen = pod.started is not None and now - pod.started >= KNOWN and usage.anonymous_before is not None
    # Who was killed would have held more.
    if not seen or usage.anonymous_day is None or (usage.process_kills is not None and usage.process_kills.value):
        return None
    return usage.anonymous_day.value


def _enough(item: decide.Item, held: float, line: str | None) -> int:
    """The memory that would do: for a day's largest, and for all slots of a worker, or tasks of a scheduler."""
    here = local.slots_of(item.seen) if item.workload.component == "scheduler" else None
    tasks = local.footprint(item.workload.living, here, item.seen, item.past) if here is not None else None
    if here is not None and tasks is not None:
        return max(quantity.rounded(MARGIN * held + steps.PROBE_SPIKE), tasks.need(here))
    slots = [workgroup.in_force(pod, item.workload) for pod in item.workload.living]
    busiest = max((one for one in slots if one), default=0)
    law = _law(item, [(pod, busiest) for pod in item.workload.living], line or NEEDS_MORE) if busiest else None
    return max(quantity.rounded(MARGIN * held + steps.PROBE_SPIKE), law.need(busiest) if law else 0)


def _of(pods: Sequence[object], workload: Workload) -> str:
    """`1 of 3 pods of StatefulSet/airflow-worker`."""
    return f"{len(pods)} of {counted(len(workload.living), 'pod', 'pods')} of {short(workload.label)}"


def _held(pod: Pod) -> float | None:
    """Most anonymous memory within a day, in bytes."""
    known = (pod.usage.anonymous, pod.usage.anonymous_day)
    return max((sample.value for sample in known if sample is not None), default=None)


def _law(item: decide.Item, pods: Sequence[tuple[Pod, int]], line: str) -> Footprint:
    """What slots take in these workers: as it is decided by, where the policy names concurrency."""
    known = item.slots.footprint
    slots = max((slots for _, slots in pods), default=0)
    return known or footprint([pod for pod, _ in pods], slots, 0, item.past, line, item.seen.at)


def _carried(law: Footprint, limit: int, slots: int) -> str:
    """How many slots the limit carries, and what that means for the user."""
    most = law.most(limit, slots)
    if most < 1:
        return f"The limit carries none. Give it at least {readable(law.need(1))} for one slot."
    return (
        f"The limit carries {most}. Set worker_concurrency to {most} at most, or the limit to "
        f"{readable(law.need(slots))} at least."
    )


def _upon_kill(item: decide.Item, limit: int, slots: int | None = None) -> str:
    """What the operator does about a limit that is too small, now or upon a kill, and what it will not."""
    step = item.sizing.step
    if item.spec.mode is api.Mode.ENFORCE and step is not None and (step.values.memory.limit or 0) > limit:
        return "The operator raises the limit now, from its history."
    return _only_upon_kill(item, limit, slots)


def _only_upon_kill(item: decide.Item, limit: int, slots: int | None) -> str:
    most = item.bounds.named
    if steps.beyond(item.bounds, item.workload):
        return f"The operator leaves it alone: its template is above {most}."
    if item.spec.mode is api.Mode.RECOMMEND:
        left = f"The operator leaves it to the {short(item.ruled_by)}, and answers no kill of it."
        return left if item.ruled_by else "In mode Recommend the operator changes nothing."
    entry = item.spec.worker(item.workload.target, item.workload.name) if item.workload.component == "worker" else None
    bounds = None if entry is None else entry.concurrency
    untuned = " The slots are not tuned: the policy names no concurrency." if entry is not None and not bounds else ""
    if limit < item.bounds.max:
        follows = "The limit follows with the next raise of slots, and a" if bounds is not None else "A"
        return f"{follows} kill is answered with a larger limit, up to {most}.{untuned}"
    if bounds is None or slots is None:
        return f"The limit is at {most}, and stays after a kill.{untuned}"
    if slots <= bounds.min:
        return f"Nothing is left to change: the limit is at {most}, the slots at concurrency.min."
    return f"The limit is at {most}: after a kill the slots come down, to {bounds.min} at least."


def _limited(item: decide.Item) -> Iterator[Pod]:
    """The pods whose container runs under a limit."""
    return (pod for pod in item.workload.living if pod.running is not None and pod.running.limit)


def _limit(pod: Pod) -> int:
    """The limit in force of such a pod."""
    return (pod.running or pod.memory).limit or 0
