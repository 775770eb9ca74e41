"""What is wrong before any worker is asked: what creates tasks, the scheduler, the database, the triggerer."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from airflow_tuner import runaway
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, MetricsState, Pod, Severity, Workload
from airflow_tuner.sentence import counted, short

STARTING = timedelta(seconds=180)
"""A scheduler's pod may take so long to be ready. On the official chart all components were ready 50 s after the
install; migrations and slow nodes take longer."""

RESTARTING = timedelta(seconds=120)
"""So long may a container take that begins again in its pod, after one death."""


def runaway_tasks(case: Case) -> Iterator[Finding]:
    """One DAG runs many times more tasks than it ever did on the day before."""
    found = runaway.found(case.seen.airflow.tasks)
    if found is not None:
        yield Finding(
            "RunawayTasks",
            Severity.WARNING,
            f"dag/{short(found.dag)}",
            f"{found.told} Slots are not raised meanwhile: more workers would only run it faster. Not meant: pause the "
            "DAG, and look at what triggers or maps it. Meant, such as a backfill: set more slots in your values.",
            case.seen.at,
        )


def scheduler_down(case: Case) -> Iterator[Finding]:
    """No scheduler works: none of its pods is ready, or its heartbeat stands still."""
    workloads = [item for item in case.seen.workloads if item.component == "scheduler"]
    wanted = [item for item in workloads if item.replicas > 0]
    if workloads and not wanted:
        # Scaled to zero: somebody wants it so.
        return
    parts = [told for item in wanted if (told := _not_ready(item, case.seen.at))]
    down = bool(parts) and len(parts) == len(wanted)
    if down:
        told = " ".join(parts)
    elif case.seen.airflow.still and case.seen.metrics.state is MetricsState.FRESH:
        told = (
            "The scheduler's heartbeat (airflow_scheduler_heartbeat) did not move in three minutes: it stands still, or "
            "what it sends no longer reaches the StatsD exporter."
        )
    else:
        return
    yield Finding(
        "SchedulerDown",
        Severity.CRITICAL,
        "scheduler",
        f"{told} No task is scheduled meanwhile. Slots and parsing are left alone. Look at the scheduler's log, Events.",
        case.seen.at,
    )


def _not_ready(workload: Workload, now: datetime) -> str:
    """That no pod of a scheduler is ready, though they have had the time; empty where one is, or may be soon."""
    pods = workload.living
    if any(pod.ready and pod.running is not None for pod in pods):
        return ""
    if not pods:
        # Between two pods of a rollout there is none for a moment; refused ones do not come by themselves.
        return f"{short(workload.label)} has no pod: the API server refuses them." if workload.refusal else ""
    if any(_beginning(pod, now) for pod in pods):
        return ""
    deaths = sum(pod.deaths for pod in pods)
    died = f", and {counted(deaths, 'death', 'deaths')} of their containers" if deaths else ""
    return f"None of {counted(len(pods), 'pod', 'pods')} of {short(workload.label)} is ready{died}."


def _beginning(pod: Pod, now: datetime) -> bool:
    """It may be ready soon. A container that dies again and again is not."""
    if now - pod.created < STARTING:
        return True
    return pod.started is not None and now - pod.started < RESTARTING and pod.deaths <= 1
