"""Can what is seen be trusted: the metrics source, Airflow's own series, the broker."""

from collections.abc import Iterator

from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, MetricsState, Severity


def metrics_missing(case: Case) -> Iterator[Finding]:
    """The metrics source does not answer, has nothing, or only old samples."""
    metrics = case.seen.metrics
    if metrics.state is MetricsState.FRESH:
        return
    reason = "MetricsStale" if metrics.state is MetricsState.STALE else "MetricsUnavailable"
    yield Finding(
        reason,
        Severity.WARNING,
        "policy",
        f"{metrics.message} Until it is back, kills of single processes cannot be seen; kills of whole containers are "
        "still answered, and nothing is ever lowered.",
        case.seen.at,
    )


def airflow_metrics_missing(case: Case) -> Iterator[Finding]:
    """Slots or parsing are to be tuned, and Airflow's own series are not there."""
    problem = case.seen.airflow.problem
    if (case.spec.tunes_slots or case.spec.tunes_parsing) and problem and case.seen.metrics.state is MetricsState.FRESH:
        yield Finding(
            "AirflowMetricsMissing",
            Severity.WARNING,
            "policy",
            f"{problem} Until then, slots and parsing are left alone; memory is tuned.",
            case.seen.at,
        )


def broker_unavailable(case: Case) -> Iterator[Finding]:
    """The policy names a Celery broker that cannot be used."""
    if case.seen.broker:
        yield Finding(
            "BrokerUnavailable",
            Severity.WARNING,
            "policy",
            f"{case.seen.broker} Until then, workers' slots change only at their next creation; memory is tuned.",
            case.seen.at,
        )
