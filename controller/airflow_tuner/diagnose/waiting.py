"""What waits: tasks for a worker, DAG files for a parse."""

from collections.abc import Iterator

from airflow_tuner import cores, lag, stranded
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Severity


def stranded_tasks(case: Case) -> Iterator[Finding]:
    """A worker died with its tasks, and Airflow still counts them: nothing starts although the workers are idle."""
    for item in case.items:
        workload, now = item.workload, case.seen.at
        if workload.component != "worker":
            continue
        found = stranded.found(workload, case.seen, item.past)
        if found is not None:
            yield Finding(
                "StrandedTasks",
                Severity.CRITICAL,
                workload.target,
                f"{found.told} {found.why(now)} More slots would not help, and are not given. A higher limit prevents "
                "the next stall and does not end this one; a lower scheduler.task_queued_timeout (600 s) shortens it.",
                found.loss.at if found.loss is not None else now,
            )


def queue_lag_high(case: Case) -> Iterator[Finding]:
    """Tasks wait longer than the objective allows; what holds them back."""
    for item in case.items:
        found = item.slots
        if found.flow is not None and found.cause:
            of_cpu = cores.said(item.cores) if found.cause == lag.CPU_BOUND else ""
            parts = (found.flow.told, f"{found.cause}: {found.told}", of_cpu, found.hold)
            yield Finding(
                "QueueLagHigh",
                Severity.WARNING,
                item.workload.target,
                " ".join(part for part in parts if part),
                case.seen.at,
            )
    if case.spec.tunes_slots:
        stalled = any(True for _ in stranded_tasks(case))
        runs = case.seen.executors
        before = lag.before_workers(
            case.seen.airflow.tasks, stalled=stalled, workers=runs.celery, shared=runs.several or runs.local
        )
        for cause, about, told in before:
            yield Finding("QueueLagHigh", Severity.INFO, about, f"{cause}: {told}", case.seen.at)


def parsing_overloaded(case: Case) -> Iterator[Finding]:
    """Parsing takes more than its share of CPU, or is slower than the objective."""
    for item in case.items:
        found = item.parsing
        if found.cause:
            wanted = f" The right interval is {found.interval} s." if found.interval else ""
            advice = " Move work out of the top level of slow files, or let Airflow ignore files that hold no DAG."
            yield Finding(
                "DagParsingOverloaded",
                Severity.WARNING,
                item.workload.target,
                f"{found.cause}: {found.told}{wanted}{advice} {found.hold}".rstrip(),
                case.seen.at,
            )
