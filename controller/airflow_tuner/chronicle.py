"""What came of a time, as a report tells it: per target what was used and set, every change, kill and finding. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from airflow_tuner import api, lag
from airflow_tuner.counterfactual import Kill, in_force, tighter
from airflow_tuner.decide import bounds_of
from airflow_tuner.model import Change, Cpu, Finding, Memory, Observation, Severity, Workload

ASSUMED = frozenset({"GracePeriodTooShort", "ProbeTooTight"})
"""Findings that rest on the template, of which the metrics say nothing."""

GIB_HOURS = 2**30 * 3600

Totals = tuple[int, int]
"""Before and after, of all pods together, in bytes."""


@dataclass(frozen=True, slots=True)
class Look:
    """One target at one moment. Of memory the largest pod's counts. Bytes; `None`: not known, or none."""

    pods: int
    held: float | None
    """Most anonymous memory within the step."""
    before: Memory
    """As it was set."""
    after: Memory
    """As it would have been."""
    requested: Totals
    limited: Totals | None
    """`None`: some pod has no limit, before or after."""
    slots: tuple[int | None, int | None]
    """Of all workers together, before and after."""
    busy: int | None = None
    """Tasks that ran."""
    waiting: int | None = None
    """Tasks that waited for a worker."""
    wait: float | None = None
    """Seconds that the last of them waited, at the pace of that moment."""
    parsing: tuple[int | None, int | None] = (None, None)
    """Seconds between two parses, before and after."""
    cores: float | None = None
    """In use by one pod, averaged over the window; `None` also where the policy does not name its CPU."""
    cpu: tuple[Cpu, Cpu] = (Cpu(), Cpu())
    """As it was set, and as it would have been: the largest pod's."""
    cpu_requested: Totals | None = None
    """Thousandths of a core; `None`: the policy does not name its CPU."""
    over: int = 0
    """Pods that held more than their limit would have been."""


@dataclass(frozen=True, slots=True)
class Said:
    """A finding for as long as it held."""

    reason: str
    target: str
    severity: Severity
    first: datetime
    last: datetime
    message: str
    """As it was said last."""
    looks: int


@dataclass(slots=True)
class Course:
    """One target over the time."""

    label: str
    """Kind and name of its workload."""
    looks: dict[int, Look] = field(default_factory=dict)
    """By the number of the moment: there is none where it had no pods."""
    changes: list[tuple[int, Change]] = field(default_factory=list)
    """With the number of the moment."""
    kills: list[Kill] = field(default_factory=list)


@dataclass(slots=True)
class Chronicle:
    """All that a report tells."""

    title: str
    told: str
    """What it is, in a sentence."""
    objective: int
    """Seconds that a task may wait."""
    lived: bool = False
    """The use is that of a world with the operator in it: nothing is only imagined in it."""
    notes: list[str] = field(default_factory=list)
    """What it cannot know, and what is assumed."""
    moments: list[datetime] = field(default_factory=list)
    courses: dict[str, Course] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    _open: dict[tuple[str, str], Said] = field(default_factory=dict)

    @property
    def step(self) -> timedelta:
        """Between two looks."""
        return self.moments[1] - self.moments[0] if len(self.moments) > 1 else timedelta(0)

    def note(
        self,
        at: datetime,
        looks: Mapping[str, tuple[str, Look]],
        changes: Iterable[Change],
        findings: Iterable[Finding],
        kills: Iterable[Kill] = (),
    ) -> None:
        """One more moment. `looks`: by target, with the workload's label."""
        number = len(self.moments)
        self.moments.append(at)
        for target, (label, look) in looks.items():
            self.courses.setdefault(target, Course(label)).looks[number] = look
        for change in changes:
            if change.target in self.courses:
                self.courses[change.target].changes.append((number, change))
        for kill in kills:
            if kill.target in self.courses:
                self.courses[kill.target].kills.append(kill)
        self._say(at, [one for one in findings if one.reason not in ASSUMED])

    def _say(self, at: datetime, findings: Sequence[Finding]) -> None:
        now: dict[tuple[str, str], Said] = {}
        for one in findings:
            key = (one.reason, one.target)
            old = now.get(key) or self._open.get(key)
            first, looks = (at, 0) if old is None else (old.first, old.looks)
            looks += key not in now
            now[key] = Said(one.reason, one.target, one.severity, first, at, one.message, looks)
        self.said += [old for key, old in self._open.items() if key not in now]
        self._open = now

    def close(self) -> None:
        """The time is over: what still holds is told, too; who asks for most memory comes first."""
        self.courses = dict(sorted(self.courses.items(), key=lambda item: -sums(self, item[1]).requested[0]))
        self.said += self._open.values()
        self._open = {}
        self.said.sort(key=lambda one: (one.first, one.reason, one.target))


def looks(
    spec: api.Spec, before: Observation, after: Observation, held: Mapping[str, float], lived: Observation
) -> dict[str, tuple[str, Look]]:
    """The targets at a moment. `before` and `after`: as set without the operator, and with it.

    `held`: the most that each pod held. `lived`: which of both the tasks lived in.
    """
    found = {}
    for was, would, real in zip(before.workloads, after.workloads, lived.workloads, strict=True):
        if bounds_of(spec, was.component, was.target, was.name) is not None:
            look = _flowing(spec, lived, real, _look(was, would, after.line, held))
            if spec.cpu(was.component, was.target, was.name) is not None:
                look = _computing(look, was, would, after.line)
            found[was.target] = (was.label, look)
    return found


def _computing(look: Look, was: Workload, would: Workload, line: str | None) -> Look:
    """With its CPU."""
    pairs = zip(was.living, would.living, strict=True)
    return replace(
        look,
        cores=max((pod.usage.cpu.value for pod in was.living if pod.usage.cpu is not None), default=None),
        cpu=(in_force(was, line).cpu, in_force(would, line).cpu),
        cpu_requested=_sums((pod.cpu.request or 0, other.cpu.request or 0) for pod, other in pairs),
    )


def _flowing(spec: api.Spec, seen: Observation, workload: Workload, look: Look) -> Look:
    """With how its tasks flow, of a worker."""
    tasks, pods = seen.airflow.tasks, [pod for pod in workload.living if pod.running is not None]
    if workload.component != "worker" or tasks is None or not pods:
        return look
    slots = _slots(workload, in_force(workload, seen.line).concurrency) or 0
    alone = sum(item.component == "worker" for item in seen.workloads) == 1
    several, objective = seen.executors.several, spec.objectives.queue_lag_seconds
    flow = lag.flow(workload, pods, slots, tasks, objective, alone=alone, several=several)
    return look if flow is None else replace(look, busy=flow.running, waiting=flow.waiting, wait=flow.wait)


def _look(was: Workload, would: Workload, line: str | None, held: Mapping[str, float]) -> Look:
    old, new = in_force(was, line), in_force(would, line)
    sizes = [held[pod.name] for pod in was.living if pod.name in held]
    pairs = [*zip(was.living, would.living, strict=True)]
    limits = [(pod.memory.limit, other.memory.limit) for pod, other in pairs]
    slots = (_slots(was, old.concurrency), _slots(would, new.concurrency))
    return Look(
        pods=len(was.living),
        held=max(sizes, default=None),
        before=old.memory,
        after=new.memory,
        requested=_sums((pod.memory.request or 0, other.memory.request or 0) for pod, other in pairs),
        limited=None
        if any(None in pair for pair in limits)
        else _sums((one or 0, other or 0) for one, other in limits),
        slots=slots,
        parsing=(old.interval, new.interval),
        over=sum(_over(pod.memory.limit, other.memory.limit, held.get(pod.name)) for pod, other in pairs),
    )


def _over(limit: int | None, then: int | None, held: float | None) -> bool:
    """More was held than a limit that would have been smaller."""
    return held is not None and then is not None and held > then and tighter(then, limit)


def _sums(pairs: Iterable[Totals]) -> Totals:
    told = [*pairs]
    return sum(one for one, _ in told), sum(other for _, other in told)


def _slots(workload: Workload, each: int | None) -> int | None:
    return None if each is None else each * len(workload.living)


@dataclass(frozen=True, slots=True)
class Sums:
    """A target in numbers."""

    hours: float
    """Hours in which it had pods."""
    requested: tuple[float, float]
    """GiB hours, before and after."""
    limited: tuple[float, float] | None
    """The same of limits; `None`: there was no limit at some time."""
    happened: int
    """Kills that happened."""
    roomier: int
    """Of them those with more room by then, as `Kill.roomier` has it."""
    imagined: int
    """Kills that would have been."""
    over: float
    """Hours in which a pod held more than its limit would have been."""
    late: float | None
    """Hours in which tasks waited longer than the objective allows; `None`: not known."""
    peak: float | None
    """Most that a pod held, in bytes."""
    cores: tuple[float, float] | None
    """Core hours that were requested, before and after; `None`: the policy does not name its CPU."""


def sums(chronicle: Chronicle, course: Course) -> Sums:
    """A target in numbers."""
    step = chronicle.step.total_seconds()
    told = [*course.looks.values()]
    limited = [look.limited for look in told]
    known = [look for look in told if look.waiting is not None]
    late = sum((math.inf if look.wait is None else look.wait) > chronicle.objective for look in known)
    requested = [sum(look.requested[side] for look in told) * step / GIB_HOURS for side in (0, 1)]
    both = None
    if told and all(pair is not None for pair in limited):
        both = tuple(sum(pair[side] for pair in limited if pair is not None) * step / GIB_HOURS for side in (0, 1))
    hours = step / 3600
    return Sums(
        hours=len(told) * hours,
        requested=(requested[0], requested[1]),
        limited=None if both is None else (both[0], both[1]),
        happened=sum(kill.count for kill in course.kills if kill.happened),
        roomier=sum(kill.count for kill in course.kills if kill.roomier),
        imagined=sum(kill.count for kill in course.kills if not kill.happened),
        over=sum(look.over > 0 for look in told) * hours,
        late=late * hours if known else None,
        peak=max((look.held for look in told if look.held is not None), default=None),
        cores=_core_hours(told, hours),
    )


def _core_hours(told: Sequence[Look], hours: float) -> tuple[float, float] | None:
    known = [look.cpu_requested for look in told if look.cpu_requested is not None]
    if not known:
        return None
    before, after = (sum(pair[side] for pair in known) * hours / 1000 for side in (0, 1))
    return before, after
