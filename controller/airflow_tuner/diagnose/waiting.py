"""What waits: tasks for a worker, DAG files for a parse."""

from collections.abc import Iterator

from airflow_tuner import lag
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Severity


def queue_lag_high(case: Case) -> Iterator[Finding]:
    """Tasks wait longer than the objective allows; what holds them back."""
    for item in case.items():
        found = item.slots
        if found.flow is not None and found.cause:
            parts = (found.flow.told, f"{found.cause}: {found.told}", found.hold)
            yield Finding(
                "QueueLagHigh",
                Severity.WARNING,
                item.workload.target,
                " ".join(part for part in parts if part),
                case.seen.at,
            )
    if case.spec.tunes_slots:
        for cause, about, told in lag.before_workers(case.seen.airflow.tasks):
            yield Finding("QueueLagHigh", Severity.INFO, about, f"{cause}: {told}", case.seen.at)


def parsing_overloaded(case: Case) -> Iterator[Finding]:
    """Parsing takes more than its share of CPU, or is slower than the objective."""
    for item in case.items():
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
