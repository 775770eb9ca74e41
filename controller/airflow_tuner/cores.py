"""CPU from what a week took: the request for all but its busiest hours, more limit where that holds back. Pure.

CPU that is short kills nothing, so it waits for memory. A limit reserves nothing and never comes down; none is added.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_tuner import api, quantity, sizing
from airflow_tuner.forecast import LEAST
from airflow_tuner.history import WEEK, History, hour_of, of_cpu
from airflow_tuner.model import SERVICE, Cpu, Pod, Workload
from airflow_tuner.quantity import readable_cpu
from airflow_tuner.sentence import short
from airflow_tuner.sizing import Subject
from airflow_tuner.steps import Step, cpu_sizes, cpu_text

MARGIN = 1.1
"""Times what the busy hours of a week took, a request: there is some room where all share a node."""

COVERED = 0.99
"""Share of a week's hours that a request covers: the one or two busiest, often a start or a rollout, may borrow."""

THROTTLED = 0.02
"""Share of the scheduling periods that a CPU limit may hold a container back in; above, the limit is raised."""

RAISED = 1.3
"""Times a limit that holds back."""

WORTH = 0.1
"""Share of the present request below which another one is not worth a change."""

STEP = 10
"""Thousandths of a core that values are rounded up to."""

STARTING = timedelta(seconds=60)
"""What a container does in its first minute says nothing: it starts Airflow, with all the CPU there is (measured: the
official chart's components were healthy 50 s after their installation)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a target's CPU, in thousandths of a core."""

    min: int
    max: int

    def hold(self, cpu: Cpu) -> Cpu:
        """`cpu` inside the bounds, its request not above its limit; what is not set stays so."""
        limit = None if cpu.limit is None else min(max(cpu.limit, self.min), self.max)
        request = None if cpu.request is None else min(max(cpu.request, self.min), limit or self.max)
        return Cpu(request, limit)

    def beyond(self, cpu: Cpu) -> bool:
        """Above the largest."""
        return max(cpu.request or 0, cpu.limit or 0) > self.max


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is to be said about a target's CPU."""

    bounds: Bounds | None = None
    """`None`: it is not the operator's."""
    used: int | None = None
    """Thousandths of a core that the busy hours of the last week took; `None`: too little is known."""
    hours: int = 0
    """Hours of the last week that are known."""
    target: Cpu | None = None
    """What would be set if nothing held it."""
    decided: int | None = None
    """The limit that it should have so far."""
    step: Step | None = None
    hold: str = ""
    """Why something else is not set; empty where nothing is to be said."""


def bounds_of(spec: api.Spec, workload: Workload) -> Bounds | None:
    """The bounds that the spec gives a workload's CPU; `None` where it says nothing about it."""
    stated = spec.cpu(workload.component, workload.target, workload.name)
    # Beside a Docker engine nothing is reserved: only a limit is of use.
    if stated is None or (workload.kind == SERVICE and workload.stated.cpu.limit is None):
        return None
    # Inwards, as what is written is whole thousandths and the API server holds it against the bounds as they stand.
    low, high = quantity.millicores(stated.min), math.floor(quantity.cores(stated.max) * 1000 + 1e-6)
    return Bounds(low, high) if 0 < low <= high else None


def settled(spec: api.Spec, pod: Pod, now: datetime) -> bool:
    """Its container has run for longer than what its CPU is averaged over, its start left out."""
    span = timedelta(seconds=spec.metrics.window_seconds) + STARTING
    return pod.started is not None and now - pod.started >= span


def held_back(spec: api.Spec, pod: Pod, now: datetime) -> float:
    """Share of the periods in which the CPU limit held a pod's container back.

    0 where that is not known, also for one that has just started.
    """
    return pod.usage.throttled.value if pod.usage.throttled is not None and settled(spec, pod, now) else 0.0


def corrected(subject: Subject, bounds: Bounds | None) -> Step | None:
    """What goes along with every other step: the API server takes an entry as a whole, or not at all."""
    workload, before, tuned = subject.workload, subject.before.cpu, subject.past.tuned
    given = tuned is not None and tuned.requests.cpu is not None
    follow = "new pods follow the template's CPU; running pods are left as they are."
    if bounds is None:
        ruler = subject.seen.cpu_ruler(workload)
        why = f"is left to the {short(ruler)}" if ruler else "is no longer named by the policy"
        told = f"The CPU of {short(workload.label)} {why}: {follow}"
        return Step(subject.before, "Released", told) if given else None
    template = workload.stated.cpu
    if before == template:
        return None
    if bounds.beyond(template):
        told = f"The policy's maximum is {readable_cpu(bounds.max)} of CPU, below what the template of "
        return _to(subject, template, "BoundsChanged", f"{told}{short(workload.label)} says: {follow}")
    after = bounds.hold(before)
    told = f"{_moved(before, after)}: the policy's bounds are {readable_cpu(bounds.min)} to {readable_cpu(bounds.max)}."
    return None if after == before else _to(subject, after, "BoundsChanged", told)


def assess(subject: Subject, bounds: Bounds | None) -> Assessment:
    """What a target's CPU should be, by what it took and by what its limit held back."""
    now, workload = subject.before.cpu, subject.workload
    hold = _not_ours(subject, bounds)
    if bounds is None or hold:
        return Assessment(bounds, hold=hold)
    history = subject.seen.histories.get(of_cpu(workload.target), History())
    used, hours = _used(history, hour_of(subject.seen.at))
    waits = _waits(subject)
    if (inside := bounds.hold(now)) != now:
        told = f"{_moved(now, inside)}: the policy's minimum is {readable_cpu(bounds.min)}."
        step = None if waits else _to(subject, inside, "BelowMinimum", told)
        return Assessment(bounds, used, hours, inside, now.limit, step, waits)
    limit, held, hold = _limit(subject, bounds)
    target = _target(subject, bounds, used, limit)
    found = Assessment(bounds, used, hours, target, now.limit)
    if (after := _more(now, target)) != now:
        return replace(found, step=None if waits else _raise(subject, found, after, held), hold=waits)
    less = _less(subject, bounds, used)
    if less is None or less == now.request:
        return replace(found, hold=hold)
    own = {
        "what the pods use now is not known": not sizing.fresh(subject)
        or not all(_known(pod) for pod in workload.living),
        "the pods are Guaranteed, and a CPU limit never comes down": sizing.guaranteed(workload),
        "its CPU limit holds it back": bool(held),
    }
    kept = sizing.held(subject, history, own, recent=_within(subject, subject.spec.changes.cooldown.lower_seconds))
    step = None if kept else _to(subject, Cpu(less, now.limit), "CpuReleased", _told(subject, found, less))
    return replace(found, step=step, hold=kept)


def _known(pod: Pod) -> bool:
    return pod.usage.cpu is not None and not pod.usage.cpu.momentary


def _within(subject: Subject, seconds: int) -> bool:
    """The last change of its CPU is so recent."""
    return subject.seen.within(subject.past.cpu_changed, timedelta(seconds=seconds))


def _not_ours(subject: Subject, bounds: Bounds | None) -> str:
    """Why nothing is decided about it; empty where that is, or where there is nothing to say."""
    spec, workload, memory = subject.spec, subject.workload, subject.before.memory
    if bounds is None:
        ruler = subject.seen.cpu_ruler(workload)
        named = spec.cpu(workload.component, workload.target, workload.name) is not None
        return f"Its CPU is left to the {short(ruler)}." if ruler and named else ""
    if bounds.beyond(workload.stated.cpu):
        return f"The template asks for more CPU than cpu.max, {readable_cpu(bounds.max)}."
    if memory.request is None or memory.limit is None:
        return "What new pods get always has memory too, and there is no memory limit yet."
    return ""


def said(found: Assessment) -> str:
    """What is done about a container that lacks CPU, as a sentence."""
    if found.bounds is None and not found.hold:
        return "The policy names no cpu for it, and so it stays."
    if found.step is not None and found.step.reason != "CpuReleased":
        return f"Its CPU (request / limit) is to be {cpu_sizes(found.step.values.cpu)}."
    if not found.hold and found.target is not None and found.target.limit is None:
        return "It has no CPU limit: what it lacks, its node lacks."
    return found.hold or f"Its CPU limit should be {cpu_text(found.decided)}, which is not in force yet."


def _used(history: History, hour: int) -> tuple[int | None, int]:
    """What all but the busiest of the last week's hours took at most, and how many of them are known."""
    known = sorted(peak for one in range(hour - WEEK + 1, hour + 1) if (peak := history.at(one)) is not None)
    # The rank is rounded down: of a day's hours the busiest one is left out, of a week's two.
    return (known[int(COVERED * (len(known) - 1))] if len(known) >= LEAST else None), len(known)


def _limit(subject: Subject, bounds: Bounds) -> tuple[int | None, str, str]:
    """The limit to have, whom the present one holds back, and why it stays though it does."""
    spec, seen, limit = subject.spec, subject.seen, subject.before.cpu.limit
    # What happened under a smaller limit says nothing about this one.
    shares = [
        (held_back(spec, pod, seen.at), pod.name)
        for pod in subject.workload.living
        if limit is not None and pod.running_cpu is not None and (pod.running_cpu.limit or 0) >= limit
    ]
    share, name = max(shares, default=(0.0, ""))
    if limit is None or share <= THROTTLED:
        return limit, "", ""
    told = f"it held {short(name)} back in {share:.0%} of its scheduling periods"
    if limit >= bounds.max:
        return limit, told, f"The CPU limit stays at cpu.max, {readable_cpu(bounds.max)}, though {told}."
    if not seen.usual:
        # It would never come down again.
        return limit, told, f"The CPU limit stays, though {told}: a DAG runs away, or the database is slow."
    return min(_rounded(RAISED * limit), bounds.max), told, ""


def _target(subject: Subject, bounds: Bounds, used: int | None, limit: int | None) -> Cpu:
    """What would be set with this limit, inside the bounds."""
    now = subject.before.cpu
    request = now.request if used is None else _rounded(MARGIN * used)
    if limit is None:
        return bounds.hold(Cpu(request, None))
    if sizing.guaranteed(subject.workload):
        return bounds.hold(Cpu(limit, limit))
    if request is not None and now.request != now.limit:
        # With equal ones a Burstable pod could become Guaranteed, and that Kubernetes refuses.
        request = min(request, max(limit - STEP, now.request or 0))
    return bounds.hold(Cpu(request, limit))


def _more(now: Cpu, target: Cpu) -> Cpu:
    """What is raised now; what is worth no change stays."""
    request, limit = now.request, now.limit
    if target.limit is not None and limit is not None and target.limit > limit:
        limit = target.limit
    # Equal ones stay equal, however little that is worth.
    along = request == now.limit and target.request == limit
    if target.request is not None and (along or target.request > (1 + WORTH) * (request or 0)):
        request = target.request
    return Cpu(request, limit)


def _less(subject: Subject, bounds: Bounds, used: int | None) -> int | None:
    """The smaller request that would do, no less than is used now; the present one, where none is worth a change."""
    now = subject.before.cpu.request
    if now is None or used is None:
        return now
    told = [pod.usage.cpu.value for pod in subject.workload.living if pod.usage.cpu is not None]
    least = max(bounds.min, _rounded(MARGIN * max([used, *(1000 * value for value in told)])))
    return least if least <= (1 - WORTH) * now else now


def _waits(subject: Subject) -> str:
    """Why nothing is raised yet: the metrics are of the time before the last change, or a quota was in the way."""
    spec, past, now = subject.spec, subject.past, subject.seen.at
    if _within(subject, max(spec.changes.cooldown.raise_seconds, spec.metrics.window_seconds)):
        return "More CPU is asked for, but the cooldown after the last change is running."
    if past.refused is not None and now - past.refused < sizing.AFTER_REFUSAL:
        return "More CPU is asked for, but the API server refused pods with what was decided within a day."
    return ""


def _raise(subject: Subject, found: Assessment, after: Cpu, held: str) -> Step:
    now, parts = subject.before.cpu, []
    along = after.limit != now.limit and after.request == after.limit != now.request
    if after.limit != now.limit:
        span = subject.spec.metrics.window_seconds
        full = f" The policy's maximum is {cpu_text(after.limit)}." if _full(found, after.limit) else ""
        parts.append(
            f"CPU limit {cpu_text(now.limit)} -> {cpu_text(after.limit)} for all {subject.workload.unit}s of "
            f"{short(subject.workload.label)}: {held} within {span} s; above {THROTTLED:.0%} it is multiplied by "
            f"{RAISED:g}.{full}{' The request moves with it, as the two are equal.' if along else ''}"
        )
    if after.request is not None and after.request != now.request and not along:
        parts.append(_told(subject, found, after.request))
    return _to(subject, after, "CpuThrottled" if after.limit != now.limit else "CpuUsed", " ".join(parts))


def _told(subject: Subject, found: Assessment, request: int) -> str:
    """The request, with its numbers."""
    used, bounds = found.used or 0, found.bounds or Bounds(0, 0)
    asked, bound = _rounded(MARGIN * used), ""
    if request < asked:
        bound = " More is above the policy's maximum." if request == bounds.max else " More is above the limit."
    elif request > asked:
        least = "the policy's minimum" if request == bounds.min else f"{MARGIN:g} x what is used now"
        bound = f" It stays at {least}."
    span = subject.spec.metrics.window_seconds
    return (
        f"CPU request {cpu_text(subject.before.cpu.request)} -> {cpu_text(request)} for all pods of "
        f"{short(subject.workload.label)}: of the {found.hours} hours that are known of the last week, all but the "
        f"busiest took at most {readable_cpu(used)} in their busiest {span} s; the request is {MARGIN:g} x that.{bound}"
    )


def _full(found: Assessment, size: int | None) -> bool:
    return found.bounds is not None and size == found.bounds.max


def _to(subject: Subject, cpu: Cpu, reason: str, why: str) -> Step:
    return Step(replace(subject.before, cpu=cpu), reason, why)


def _moved(before: Cpu, after: Cpu) -> str:
    parts = [
        f"{name} {cpu_text(old)} -> {cpu_text(new)}"
        for name, old, new in (("request", before.request, after.request), ("limit", before.limit, after.limit))
        if old != new
    ]
    return f"CPU {', '.join(parts)}"


def _rounded(millicores: float) -> int:
    """Up to a whole step; a hair above one is that one."""
    return math.ceil(millicores / STEP - 1e-9) * STEP
