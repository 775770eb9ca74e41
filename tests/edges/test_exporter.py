"""The operator's own series, scraped by a real Prometheus."""

from collections.abc import Callable
from datetime import UTC, datetime

from airflow_tuner.exporter import Exporter
from airflow_tuner.model import Change, Finding, Severity, Values
from testbed.processes import free_port
from testbed.prometheus import Prometheus

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
KILLED = Finding("OutOfMemory", Severity.CRITICAL, "worker/default", "One was killed.", NOW)
RAISED = Change("worker/default", "d-1", "OutOfMemory", Values(), Values(), "Raised.")


def test_prometheus_reads_what_is_wrong_what_was_done_and_how_turns_went(
    prometheus_factory: Callable[..., Prometheus],
) -> None:
    exporter, port = Exporter(), free_port()
    exporter.serve(port)
    exporter.looked("airflow", "one", NOW, (KILLED,))
    exporter.changed("airflow", "one", (RAISED,))
    exporter.turned("airflow", "one", "done", 0.2)
    prometheus = prometheus_factory([{"job_name": "tuner", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}])

    wrong = 'airflow_tuner_finding{namespace="airflow",policy="one",component="worker/default"}'

    def value(promql: str) -> list[str]:
        return [item["value"][1] for item in prometheus.query(promql)]

    prometheus.program.wait_until(lambda: value(wrong) == ["1"], "the finding", 20)
    assert value(wrong.replace("component", 'reason="OutOfMemory",severity="Critical",component')) == ["1"]
    assert value("airflow_tuner_looked_at_seconds") == [str(int(NOW.timestamp()))]
    assert value('airflow_tuner_changes_total{component="worker/default",reason="OutOfMemory"}') == ["1"]
    assert value('airflow_tuner_turns_total{outcome="done"}') == ["1"]
    assert value("airflow_tuner_turn_seconds_sum") == ["0.2"]

    exporter.looked("airflow", "one", NOW, ())
    prometheus.program.wait_until(lambda: value(wrong) == [], "the finding is over", 20)
    assert value("airflow_tuner_looked_at_seconds") != []
    exporter.forget("airflow", "one")
    prometheus.program.wait_until(lambda: value("airflow_tuner_looked_at_seconds") == [], "it is forgotten", 20)
