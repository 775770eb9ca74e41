"""Can what is seen be trusted: the metrics source, Airflow's own series, the broker."""

from collections.abc import Iterator

from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, MetricsState, Severity
from airflow_tuner.telemetry import SECONDS_SENT_AS_MILLISECONDS

CORRECTED = {"3": f"{SECONDS_SENT_AS_MILLISECONDS:.0f} times on Airflow 3"}
"""What is known to be wrong of the seconds of a parse, by Airflow line."""


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
        # Where the broker and the workers tell how tasks flow, only some causes are not known.
        left = "" if case.seen.airflow.tasks else " Until then, slots and parsing are left alone; memory is tuned."
        yield Finding("AirflowMetricsMissing", Severity.WARNING, "policy", f"{problem}{left}", case.seen.at)


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


def metrics_unit_suspicious(case: Case) -> Iterator[Finding]:
    """Two numbers of Airflow's contradict each other by far: one of them is in another unit than it says."""
    if doubt := case.seen.airflow.doubt:
        yield Finding(
            "MetricsUnitSuspicious",
            Severity.WARNING,
            "dag-processor",
            f"{doubt} One of them is in another unit than the operator takes it for, most likely the seconds, which it "
            f"takes {CORRECTED.get(case.seen.line or '', 'as they are')}. Neither is believed: parsing is left alone, "
            "and no slow files are named. Check spec.airflow.version and your StatsD mapping, and look for a newer "
            "operator.",
            case.seen.at,
        )
