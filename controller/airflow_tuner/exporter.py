"""What the operator says of itself, for Prometheus: what is wrong now, what it did, and how its turns went."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from airflow_tuner.budget import Budget
from airflow_tuner.model import Change, Finding

POLICY = ("namespace", "policy")
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds. A turn takes about 0.1 s; a metrics source that does not answer holds it up for its time limit."""


class Exporter(Collector):
    """The series of one operator process. Series of a policy end with it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._findings: dict[tuple[str, str], tuple[datetime, tuple[Finding, ...]]] = {}
        self._turns = Counter(
            "airflow_tuner_turns", "Turns, by how they ended.", (*POLICY, "outcome"), registry=self.registry
        )
        self._seconds = Histogram(
            "airflow_tuner_turn_seconds", "How long turns took.", buckets=BUCKETS, registry=self.registry
        )
        self._changes = Counter(
            "airflow_tuner_changes",
            "Changes that were decided and are in force or on their way.",
            (*POLICY, "component", "reason"),
            registry=self.registry,
        )
        self._ordinary = Gauge(
            "airflow_tuner_ordinary_changes", "Ordinary changes of the last hour.", registry=self.registry
        )
        self._ordinary_most = Gauge(
            "airflow_tuner_ordinary_changes_most",
            "Ordinary changes within an hour, from which on all but answers to kills is held.",
            registry=self.registry,
        )
        self.registry.register(self)

    def serve(self, port: int) -> None:
        """Answer on /metrics of this port, from now on."""
        start_http_server(port, registry=self.registry)

    def turned(self, namespace: str, policy: str, outcome: str, seconds: float) -> None:
        """A turn has ended: `done`, `stopped` in the middle, or the name of an error."""
        self._turns.labels(namespace, policy, outcome).inc()
        self._seconds.observe(seconds)

    def looked(self, namespace: str, policy: str, at: datetime, findings: Sequence[Finding]) -> None:
        """These are the findings now."""
        self._findings[namespace, policy] = (at, tuple(findings))

    def changed(self, namespace: str, policy: str, changes: Sequence[Change]) -> None:
        """These changes were decided, and stand in the status."""
        for change in changes:
            self._changes.labels(namespace, policy, change.target, change.reason).inc()

    def spent(self, budget: Budget) -> None:
        """So many ordinary changes were made within the hour."""
        self._ordinary.set(budget.made)
        self._ordinary_most.set(budget.most)

    def forget(self, namespace: str, policy: str) -> None:
        """The policy is gone."""
        self._findings.pop((namespace, policy), None)

    def clear(self) -> None:
        """Another operator acts: what is wrong is for that one to say."""
        self._findings.clear()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is wrong now, and when that was looked at."""
        wrong = GaugeMetricFamily(
            "airflow_tuner_finding",
            "1 for everything that is wrong now.",
            labels=(*POLICY, "component", "reason", "severity"),
        )
        looked = GaugeMetricFamily(
            "airflow_tuner_looked_at_seconds", "When an Airflow was last looked at, in seconds of Unix.", labels=POLICY
        )
        for (namespace, policy), (at, findings) in list(self._findings.items()):
            looked.add_metric((namespace, policy), at.timestamp())
            for key in sorted({(item.target, item.reason, str(item.severity)) for item in findings}):
                wrong.add_metric((namespace, policy, *key), 1)
        yield wrong
        yield looked
