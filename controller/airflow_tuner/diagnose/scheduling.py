"""What is wrong before any worker is asked: what creates tasks, the scheduler, the database, the triggerer."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from airflow_tuner import capacity, cores, lag, quantity, runaway
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, MetricsState, Pod, Severity, Workload
from airflow_tuner.sentence import counted, short

STARTING = timedelta(seconds=180)
"""A scheduler's pod may take so long to be ready. On the official chart all components were ready 50 s after the
install; migrations and slow nodes take longer."""

RESTARTING = timedelta(seconds=120)
"""So long may a container take that begins again in its pod, after one death."""

LOOP_SLOW = 5.0
"""Seconds of the scheduler's mean loop, usually under one (measured: 0.03 to 0.8 s), from which it is late: it beats as
often when it is well."""

BEATS = 36
"""Heartbeats of a scheduler within three minutes."""

BEATS_SHARE = 0.5
"""Below this share of them they are late."""

STOPPED = 0.003
"""Cores below which a scheduler does not lack CPU, but asks for none, as one that is stopped: without any work it takes
0.03 to 0.05 (measured)."""

PACE = "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC"

SETTLED = timedelta(seconds=600)
"""A scheduler that has run for less may still be busy with its start, which the rates hold for five minutes."""


def runaway_tasks(case: Case) -> Iterator[Finding]:
    """One DAG runs many times more tasks than it ever did on the day before."""
    found = runaway.found(case.seen.airflow.tasks)
    if found is not None:
        celery = case.seen.executors.celery
        held = " Slots are not raised meanwhile: more workers would only run it faster." if celery else ""
        yield Finding(
            "RunawayTasks",
            Severity.WARNING,
            f"dag/{short(found.dag)}",
            f"{found.told}{held} Not meant: pause the "
            "DAG, and look at what triggers or maps it. Meant, such as a backfill: set more slots in your values.",
            case.seen.at,
        )


def scheduler_down(case: Case) -> Iterator[Finding]:
    """No scheduler works: none of its pods is ready, or its heartbeat stands still."""
    workloads = case.seen.of("scheduler")
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
            "The scheduler's heartbeat (airflow_scheduler_heartbeat) did not move in three minutes: it stands still, "
            "or what it sends no longer reaches the metrics source."
        )
    else:
        return
    yield Finding(
        "SchedulerDown",
        Severity.CRITICAL,
        "scheduler",
        f"{told} No task is scheduled meanwhile. Slots and parsing are left alone. Look at its log and Events.",
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


def scheduler_slow(case: Case) -> Iterator[Finding]:
    """The scheduler is held up: by its database, or else by the CPU it has. Whichever is the cause is told alone."""
    seen = case.seen
    schedulers = seen.of("scheduler")
    pods = [pod for item in schedulers for pod in item.living if pod.running is not None]
    if seen.airflow.tasks is None or not pods or not all(pod.usage.cpu and not pod.usage.momentary for pod in pods):
        # Without its CPU neither can be told from the other.
        return
    short_of = lag.scheduler_short(schedulers)
    slow = lag.database_wait(seen.airflow.tasks, schedulers)
    if short_of is None:
        if slow is not None:
            yield Finding(
                "DatabaseSlow",
                Severity.WARNING,
                "scheduler",
                f"{slow}, and its CPU is not short: the metadata database is slow. Slots are not raised. Look at its "
                "CPU, locks, connections and the size of its tables; `airflow db clean` removes old rows.",
                seen.at,
            )
        return
    late = _late(case, pods, own_pace=any(PACE in item.names for item in schedulers))
    said = {cores.said(item.cores) for item in case.items if item.workload.component == "scheduler"}
    if late:
        yield Finding(
            "SchedulerUnderResourced",
            Severity.WARNING,
            "scheduler",
            f"{late}, and CPU is short: {short_of}. Tasks start late. "
            f"{' '.join(sorted(said)) or cores.said(cores.Assessment())} "
            "Raise the scheduler's CPU limit and request in your values, or free its node.",
            seen.at,
        )


def _late(case: Case, pods: list[Pod], *, own_pace: bool) -> str:
    """What of the schedulers is late, as a clause; empty where nothing is, one has just begun, or all are stopped.

    `own_pace`: how often they beat is set by the user.
    """
    if not all(pod.started is not None and case.seen.at - pod.started >= SETTLED for pod in pods):
        return ""
    if all(pod.usage.cpu is not None and pod.usage.cpu.value < STOPPED for pod in pods):
        return ""
    loop, beats, usual = case.seen.airflow.loop, case.seen.airflow.beats, BEATS * len(pods)
    if loop is not None and loop > LOOP_SLOW:
        return f"The scheduler's loop takes {loop:.1f} s on average (usually less than one)"
    if not own_pace and beats is not None and beats < BEATS_SHARE * usual:
        return f"The scheduler beat {beats:.0f} times in three minutes instead of {usual}"
    return ""


def import_errors(case: Case) -> Iterator[Finding]:
    """DAG files that cannot be imported: their DAGs are missing, or old."""
    number = case.seen.airflow.import_errors
    if number:
        yield Finding(
            "ImportErrors",
            Severity.WARNING,
            "dag-processor",
            f"{counted(number, 'DAG file', 'DAG files')} cannot be imported, for two minutes at least: new DAGs in "
            "them do not appear, and known ones do not change. `airflow dags list-import-errors` names them, with why.",
            case.seen.at,
        )


def triggerer_saturated(case: Case) -> Iterator[Finding]:
    """All triggerers are full: deferred tasks wait for their triggers."""
    found = case.seen.airflow.triggerer
    if found is None or found.free > 0:
        return
    facts = [] if found.running is None else [f"{counted(found.running, 'trigger runs', 'triggers run')} in one"]
    facts += [] if found.deferred is None else [f"tasks of {counted(found.deferred, 'slot', 'slots')} are deferred"]
    numbers = f" ({', '.join(facts)})" if facts else ""
    workload = next(iter(case.seen.of("triggerer")), None)
    most = None if case.spec.triggerer is None else quantity.parse(case.spec.triggerer.memory.max)
    told = "" if workload is None else capacity.advice(workload, case.seen, found, most)
    yield Finding(
        "TriggererSaturated",
        Severity.WARNING,
        "triggerer",
        f"No triggerer had room for another trigger in three minutes: their capacity is used up{numbers}. "
        "Deferred tasks wait, and nothing looks at what they wait for. "
        f"{told or 'Add triggerers, or raise config.triggerer.capacity.'}",
        case.seen.at,
    )
