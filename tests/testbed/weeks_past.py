"""Weeks of the fleet model as a Prometheus would have scraped them: cAdvisor, kube-state-metrics, Airflow's exporter.

No operator is in it: the user's own values hold. By the names of the official chart's StatsD exporter.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import NAMESPACE_OID, uuid5

from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.fleet.weeks import CRITICAL, Weeks

MI = 2**20
MINUTE = 60
SELDOM = 4
"""Minutes between two samples of what seldom changes; Prometheus takes a sample for present for five."""

CORES = 2
"""Cores that each container requests; none has a limit."""

SINGLES = {"scheduler": (200.0, 0.3), "dag-processor": (250.0, 0.4)}
"""Components of one pod: MiB and cores."""


@dataclass
class Past:
    """A story that was lived through, and what was scraped of it."""

    scenario: Scenario
    limit: int
    """MiB of each worker; its request is the same."""
    seed: int = 1
    bare: bool = False
    """Only cAdvisor is scraped: neither kube-state-metrics nor Airflow."""
    namespace: str = "airflow"
    kills: list[tuple[int, int]] = field(default_factory=list)
    """Second since the beginning, and number of the worker."""
    held: list[float] = field(default_factory=list)
    """MiB of the fullest worker at each scrape."""
    busy: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    _cpu: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def begin(self) -> int:
        """In seconds since 1970."""
        day = self.scenario.begin
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())

    def lines(self) -> Iterator[str]:
        """OpenMetrics, without its end."""
        weeks = Weeks(self.scenario, self.seed, self.limit, self.limit)
        deaths = [0] * len(weeks.workers)
        total = (self.scenario.warm_up + self.scenario.days) * 24 * 60
        for minute in range(1, total + 1):
            weeks.step()
            at = self.begin + minute * MINUTE
            for worker in weeks.workers:
                if worker.deaths > deaths[worker.number]:
                    self.kills.append((int(worker.died_at), worker.number))
                    deaths[worker.number] = worker.deaths
            self.held.append(max((worker.anonymous for worker in weeks.living if worker.up), default=0.0))
            self.busy.append(weeks.running + weeks.stranded)
            self.waiting.append(len(weeks.queue))
            for name, labels, value in self._samples(weeks, seldom=minute % SELDOM == 1):
                told = ",".join(f'{key}="{text}"' for key, text in labels.items())
                yield f'{name}{{namespace="{self.namespace}",{told}}} {value:.10g} {at}\n'

    def _samples(self, weeks: Weeks, *, seldom: bool) -> Iterator[tuple[str, Mapping[str, str], float]]:
        for worker in weeks.workers:
            pod, key = f"airflow-worker-{worker.number}", (worker.number, worker.life)
            if seldom and not self.bare:
                yield from _objects(pod, "worker", self.limit, worker.deaths)
            if not worker.up:
                continue
            self._cpu[key] = self._cpu.get(key, 0.0) + MINUTE * (worker.cpu + weeks.laws.idle_cpu)
            held = worker.anonymous + (weeks.laws.probe if weeks.probe_seen() else 0.0)
            labels = _labels(pod, "worker", worker.life)
            yield from _container(labels, held, worker.peak, self._cpu[key], worker.process_kills)
            if seldom:
                yield "container_start_time_seconds", labels, self.begin + worker.started_at
        for component, (size, cores) in SINGLES.items():
            pod = f"airflow-{component}-5d6f7c8b9d-x2k4p"
            if seldom and not self.bare:
                yield from _objects(pod, component, 1024, 0)
            yield from _container(_labels(pod, component, 1), size, size + 50, cores * weeks.now, 0)
        if seldom:
            yield "machine_cpu_cores", {"instance": "node-0"}, 64
        yield "container_cpu_usage_seconds_total", {"instance": "node-0", "id": "/"}, 20.0 * weeks.now
        if not self.bare:
            yield from self._airflow(weeks)

    def _airflow(self, weeks: Weeks) -> Iterator[tuple[str, Mapping[str, str], float]]:
        running, waiting, tally = weeks.running + weeks.stranded, len(weeks.queue), weeks.tally
        free = 512 - running - waiting
        gauges = {
            "pool_open_slots_default_pool": free,
            "pool_queued_slots_default_pool": waiting,
            "pool_running_slots_default_pool": running,
            "pool_scheduled_slots_default_pool": weeks.scheduled,
            "executor_open_slots": free,
            "executor_running_tasks": running + waiting,
            "scheduler_heartbeat": weeks.minute * 12,
            "scheduler_critical_section_query_duration_count": weeks.minute * MINUTE,
            "scheduler_critical_section_query_duration_sum": weeks.minute * MINUTE * CRITICAL,
            "ti_start": tally.started,
        }
        for name, value in gauges.items():
            yield f"airflow_{name}", {"job": "statsd"}, value
        for name, value in (("queued", waiting), ("running", running)):
            yield f"airflow_ti_{name}", {"queue": "default", "dag_id": "a", "task_id": "t"}, value
        told = {"dag_id": "a", "task_id": "t"}
        yield "airflow_task_duration_count", told, tally.ended
        yield "airflow_task_duration_sum", told, tally.ended_seconds
        yield "airflow_dag_processing_last_run_seconds_ago", {"dag_file": "a"}, 3.0 + weeks.minute % 7


def _labels(pod: str, container: str, life: int) -> dict[str, str]:
    one = (uuid5(NAMESPACE_OID, f"{pod} {life}").hex * 2)[:64]
    inside = f"/kubepods/burstable/pod{uuid5(NAMESPACE_OID, pod)}/{one}"
    return {"pod": pod, "container": container, "id": inside, "name": one, "instance": "node-0"}


def _container(
    labels: Mapping[str, str], held: float, peak: float, cpu: float, kills: int
) -> Iterator[tuple[str, Mapping[str, str], float]]:
    peak = held if math.isnan(peak) else max(held, peak)
    yield "container_memory_rss", labels, held * MI
    yield "container_memory_working_set_bytes", labels, held * MI
    yield "container_memory_max_usage_bytes", labels, peak * MI
    yield "container_cpu_usage_seconds_total", labels, cpu
    yield "container_oom_events_total", labels, kills


def _objects(pod: str, container: str, limit: int, deaths: int) -> Iterator[tuple[str, Mapping[str, str], float]]:
    own = {"pod": pod, "container": container}
    sized = {**own, "resource": "memory", "unit": "byte"}
    yield "kube_pod_container_resource_limits", sized, limit * MI
    yield "kube_pod_container_resource_requests", sized, limit * MI
    yield "kube_pod_container_resource_requests", {**own, "resource": "cpu", "unit": "core"}, CORES
    yield "kube_pod_container_status_restarts_total", own, deaths
    if deaths:
        yield "kube_pod_container_status_last_terminated_reason", {**own, "reason": "OOMKilled"}, 1
        yield "kube_pod_container_status_last_terminated_exitcode", own, 137
