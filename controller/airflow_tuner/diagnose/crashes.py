"""What dies again and again, and not for memory."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from airflow_tuner.crash import SIGKILLED, Crash
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Pod, Severity, Workload
from airflow_tuner.sentence import counted, short

IN_A_ROW = timedelta(seconds=40)
"""The kubelet puts a restart off for 10 s first, and for twice as long after each death in a row: this is the third."""

MANY = 5
"""Restarts that count as such, too: a kubelet may be set to put off for less."""

FEW = 3
"""Restarts that count where two deaths are known to have come so soon one after the other."""

SETTLED = timedelta(minutes=10)
"""A container that has run so long has started: the kubelet forgets its deaths then."""


def crash_looping(case: Case) -> Iterator[Finding]:
    """A container of Airflow restarts again and again."""
    now = case.seen.at
    for workload in case.seen.workloads:
        before = case.told_before("CrashLooping", workload.target)
        found = [(pod.crash, pod) for pod in workload.living if pod.crash and _loops(pod.crash, now, before=before)]
        if found:
            crash, pod = max(found, key=lambda one: (one[0].restarts, one[1].name))
            alive = any(one.ready for one in workload.living)
            yield Finding(
                "CrashLooping",
                Severity.WARNING if alive else Severity.CRITICAL,
                workload.target,
                f"{len(found)} of {counted(len(workload.living), 'pod', 'pods')} of {short(workload.label)} "
                f"{'restarts' if len(found) == 1 else 'restart'} again and again, and not for memory: "
                f"{_told(crash, pod, workload)}.{_why(crash)} `kubectl logs --previous {short(pod.name)} --container "
                f"{short(crash.container)}` ends with why; the operator may not read logs.",
                case.seen.at,
            )


def _loops(crash: Crash, now: datetime, *, before: bool) -> bool:
    """It dies soon after each start. `before`: that was told already, and it may just be running in between."""
    if crash.lasted is not None and crash.lasted >= SETTLED:
        return False
    if crash.put_off is not None:
        return crash.put_off >= IN_A_ROW or crash.restarts >= MANY
    if crash.started is not None:
        return before and now - crash.started < SETTLED
    soon = crash.before is not None and crash.at - crash.before < SETTLED
    return now - crash.at < SETTLED and (before or (soon and crash.restarts >= FEW))


def _told(crash: Crash, pod: Pod, workload: Workload) -> str:
    """How the container died last."""
    other = "" if crash.container == workload.container else f"{short(crash.container)} of "
    lasted = "" if crash.lasted is None else f" after {crash.lasted.total_seconds():.0f} s"
    code = "" if crash.code is None else f", exit code {crash.code}"
    reason = f" ({short(crash.reason)}{code})" if crash.reason or code else ""
    return (
        f"{other}{short(pod.name)} has had {counted(crash.restarts, 'restart', 'restarts')}, and died last at "
        f"{crash.at:%H:%M:%S}{lasted}{reason}"
    )


def _why(crash: Crash) -> str:
    """What the death itself says of its cause; starts with a space."""
    if crash.of_celery:
        return (
            " Its last words are those of an Airflow that cannot load Celery, as with celery 5.7 and its provider "
            "3.26.0: pin celery<5.7."
        )
    if crash.code == SIGKILLED:
        return " It was killed (SIGKILL), often by its liveness probe: `kubectl describe pod` says so."
    if crash.code == 0:
        return " It ended by itself, without an error: look at its command."
    return ""
