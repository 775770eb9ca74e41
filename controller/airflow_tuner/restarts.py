"""Which pods wait for a restart, what for, and which one may be restarted now. Pure.

A value that a living process cannot take up waits for the pod's next creation. Where the policy allows it, that is
brought about: one pod at a time, inside the window, never where the successor would not be born with the value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow_tuner import api, environment, lag, leak
from airflow_tuner.model import Decision, Memory, Observation, Pod, TargetDecision, Workload
from airflow_tuner.past import from_tuned, whole
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import short

BORN_LATER = timedelta(seconds=5)
"""A pod created this soon after a decision may have been admitted before the API server knew of it."""

SLOTS = "slots"
LEAKED = "memory: it has leaked"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A pod that waits for its next creation."""

    target: TargetDecision
    pod: Pod
    what: str
    """What it waits for, e.g. `parsing interval 30 s -> 120 s`."""
    blocked: str = ""
    """Why it is not restarted now; empty: it may be."""

    def __str__(self) -> str:
        return f"{short(self.pod.name)} waits for {self.what}"


def waiting(spec: api.Spec, seen: Observation, decision: Decision) -> tuple[Waiting, ...]:
    """The pods that wait, those that may be restarted first; of these only the first may be taken in one turn."""
    live = seen.broker == ""
    # One at a time in all of this Airflow.
    unready = next((told for target in decision.targets if (told := _unready(target.workload))), "")
    found = [
        Waiting(target, pod, ", ".join(what), _blocked(spec, seen, target, pod, what) or unready)
        for target in decision.targets
        if target.tuned is not None
        for pod in target.workload.living
        if _ours(target, pod) and (what := [*_what(target, pod, seen.line, live=live), *_leaked(spec, seen, pod)])
    ]
    # A worker that does nothing loses nothing.
    found.sort(key=lambda item: (bool(item.blocked), item.pod.slots.busy if item.pod.slots else 0, item.pod.name))
    return tuple(found)


def inside(window: api.Window | None, at: datetime) -> bool:
    """Whether a moment lies in the window; without one, always."""
    if window is None or window.start == window.end:
        return True
    now = at.astimezone(ZoneInfo(window.time_zone)).strftime("%H:%M")
    if window.start < window.end:
        return window.start <= now < window.end
    return now >= window.start or now < window.end


def _ours(target: TargetDecision, pod: Pod) -> bool:
    """Born as the template says, or with our values."""
    as_template = whole(pod.memory) == target.workload.template and pod.environment == target.workload.environment
    return bool(pod.decision) or pod.resized or as_template


def _leaked(spec: api.Spec, seen: Observation, pod: Pod) -> Iterator[str]:
    """What only a restart gives back; not waited for where none is allowed."""
    if spec.changes.restarts.allowed and leak.much(pod, seen.at):
        found = readable(int(leak.leaked(pod, seen.at)))
        yield f"{LEAKED} {found} since its start, {leak.pace(pod) * 3600 / MEBIBYTE:.1f} MiB/h"


def _what(target: TargetDecision, pod: Pod, line: str | None, *, live: bool) -> Iterator[str]:
    workload, desired = target.workload, target.desired
    limit = (from_tuned(target.tuned) or Memory()).limit
    if limit is not None and pod.memory.limit is None:
        yield f"its first memory limit of {readable(limit)}"
    elif limit is not None and pod.restarts_on_resize and (pod.memory.limit or limit) < limit:
        yield f"memory limit {readable(pod.memory.limit or 0)} -> {readable(limit)}"
    born = environment.stated(workload.component, pod.environment, line)
    stated = workload.stated
    for name, unit, now, then in (
        # A worker that answers is changed while it runs; one that does not at the moment will be.
        (SLOTS, "", None if live or pod.slots else born.concurrency or stated.concurrency or 0, desired.concurrency),
        ("parsing interval", " s", born.interval or stated.interval or 0, desired.interval),
        ("parsing processes", "", born.processes or stated.processes or 0, desired.processes),
    ):
        if now is not None and then is not None and now != then:
            yield f"{name} {f'{now}{unit}' if now else 'as configured'} -> {then}{unit}"


def _blocked(spec: api.Spec, seen: Observation, target: TargetDecision, pod: Pod, what: list[str]) -> str:
    workload = target.workload
    if told := _forbidden(spec, seen):
        return told
    since = datetime.fromisoformat(target.tuned.since) if target.tuned is not None else seen.at
    given = [part for part in what if not part.startswith(LEAKED)]
    if given and seen.admission and pod.created > since + BORN_LATER:
        return "the admission policy did not give it this at its last creation"
    if seen.broker and all(part.startswith(SLOTS) for part in what):
        return "its slots change while it runs, once the Celery broker answers"
    if pod.held:
        return f"its annotation {pod.held} asks not to disrupt it"
    runs = workload.component == "worker" and (pod.slots is None or pod.slots.busy > 0)
    if runs and (longest := lag.longest(seen.airflow.tasks, (pod,)) or 0) > workload.grace:
        return f"its grace period of {workload.grace} s is shorter than a task of {longest:.0f} s"
    return seen.evictions.get(pod.name, "")


def _forbidden(spec: api.Spec, seen: Observation) -> str:
    policy = spec.changes.restarts
    if not policy.allowed:
        return "the policy allows no restarts (changes.restarts.allowed)"
    if not inside(policy.window, seen.at) and policy.window is not None:
        return f"it is outside the window {policy.window.start} to {policy.window.end} {policy.window.time_zone}"
    return ""


def _unready(workload: Workload) -> str:
    """Whether pods of a workload are missing: nothing else is disrupted then."""
    there, due = [pod for pod in workload.living if pod.ready], max(workload.replicas, len(workload.living))
    if len(there) < due:
        return f"{len(there)} of {due} pods of {short(workload.label)} are ready"
    return ""
