"""The metrics source: a real Prometheus that scrapes an exporter of ours, and servers that are no Prometheus."""

import asyncio
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_tuner import api, observe, prometheus, questions, reconcile, signals, telemetry
from airflow_tuner.cluster import Cluster
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.model import MetricsState, Observation
from airflow_tuner.namings import CHART
from airflow_tuner.observe import container_id
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.settings import Source
from airflow_tuner.signals import Scope, Series, Signal
from airflow_tuner.triggers import Triggerer
from edges.servers import Server, serving
from testbed.controlplane import ControlPlane
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.processes import free_port
from testbed.prometheus import Prometheus as RealPrometheus

LIVING, DEAD, OTHER = ("a1" * 32, "d0" * 32, "0e" * 32)
WAIT_SECONDS = 20.0
WINDOW = 30
SECRET = "a-token-that-nobody-may-read"  # noqa: S105 - of no server
GOOD = {"status": "success", "data": {"resultType": "vector", "result": []}}
NASTY = ('say "hi"', "back\\slash", "two\nlines", '"} or vector(1) or up{job="', "it's {{odd}} %s %d", "ü…\t\r", "\\")
KILLS = "container_oom_events_total"
USED = "container_memory_working_set_bytes"
PEAK = "container_memory_max_usage_bytes"
RSS = "container_memory_rss"


@dataclass(frozen=True)
class Line:
    """One series of a page; `age` in seconds gives it a timestamp, as cAdvisor does."""

    metric: str
    value: float
    labels: Mapping[str, str]
    age: float | None = None

    def __str__(self) -> str:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self.labels.items())
        stamp = "" if self.age is None else f" {int((time.time() - self.age) * 1000)}"
        return f"{self.metric}{{{labels}}} {self.value}{stamp}\n"


@dataclass(frozen=True)
class Scraped:
    """A Prometheus and the exporter it scrapes every second."""

    exporter: Server
    prometheus: RealPrometheus

    def show(self, *lines: "Line | Page") -> None:
        """Serve these lines from now on, and wait until they were scraped."""
        self.exporter.body = lambda: "".join(map(str, lines))
        begun = len(self.exporter.asked)
        # The scrape under way may have the page of before; a next one begins when the one before it is in.
        self.wait(lambda: len(self.exporter.asked) > begun + 1, "two scrapes")

    def wait(self, check: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until it holds."""
        self.prometheus.program.wait_until(check, what, seconds)

    def ask(self, signal: signals.Signal, namespace: str = "n", **matchers: str) -> dict[tuple[str, str, str], float]:
        """What our client makes of it: values by pod, container and container id."""
        found = asked(self.prometheus.url, signal, namespace, matchers)
        return {(one.labels["pod"], one.labels["container"], container_id(one)): one.value for one in found}

    def read(self, line: str, **labels: str) -> telemetry.Airflow:
        """What our client makes of Airflow's own series with these labels."""
        metrics = api.Metrics(airflow_match_labels=labels, window_seconds=WINDOW)
        scope = prometheus.scope(metrics, "n")
        return telemetry.read({one.name: asked_for(self.prometheus.url, one, scope) for one in questions.AIRFLOW}, line)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def labelled(pod: str, container_id: str, **labels: str) -> dict[str, str]:
    """Labels as cAdvisor has them with containerd."""
    known = {"namespace": "n", "pod": pod, "container": "worker", "name": container_id}
    return {**known, "id": f"/kubepods/burstable/pod1-2/{container_id}", **labels}


def asked(
    url: str, signal: signals.Signal = signals.PEAK, namespace: str = "n", matchers: Mapping[str, str] | None = None
) -> tuple[Series, ...]:
    """One question to the source at `url`."""
    return asked_for(url, signal, scoped(namespace, matchers))


def asked_for(url: str, signal: Signal, scope: Scope) -> tuple[Series, ...]:
    """The same with any scope."""
    return asyncio.run(Prometheus("main", Source(url=url)).ask(signal, scope))


def scoped(namespace: str = "n", matchers: Mapping[str, str] | None = None) -> Scope:
    """The scope of a policy in this namespace, with these matchLabels."""
    metrics = api.Metrics(match_labels=dict(matchers or {}), window_seconds=WINDOW)
    return prometheus.scope(metrics, namespace)


@pytest.fixture(scope="module")
def scraped(prometheus_factory: Callable[..., RealPrometheus]) -> Iterator[Scraped]:
    """A Prometheus whose first samples are an hour old: a killed process, counted back then."""
    old = Line(KILLS, 2, labelled("w0", LIVING), age=3640)
    with serving(lambda: str(old), headers={"Content-Type": "text/plain; version=0.0.4"}) as exporter:
        target = exporter.url.removeprefix("http://")
        config = {"job_name": "cadvisor", "static_configs": [{"targets": [target]}]}
        scraped = Scraped(exporter, prometheus_factory([config]))
        scraped.wait(lambda: len(exporter.asked) > 1, "the first scrape")
        yield scraped


def test_every_signal_of_the_catalogue_is_answered_by_container(scraped: Scraped) -> None:
    before = time.time()
    scraped.show(
        Line(KILLS, 5, labelled("w0", LIVING), age=7),
        Line(USED, 900e6, labelled("w0", LIVING), age=7),
        Line(PEAK, 990e6, labelled("w0", LIVING), age=7),
        Line(PEAK, 1e6, labelled("w0", OTHER, container="log-groomer")),
        Line(PEAK, 1e6, labelled("w0", OTHER, namespace="elsewhere")),
        Line(PEAK, 1e9, {"namespace": "n", "pod": "w0", "id": "/kubepods/burstable/pod1-2"}),
    )
    key = ("w0", "worker", LIVING)
    assert scraped.ask(signals.PROCESS_KILLS) == {key: 5}
    assert scraped.ask(signals.PROCESS_KILLS_BEFORE) == {key: 2}
    assert scraped.ask(signals.PEAK) == {key: 990e6}, "no sidecar, no other namespace, no whole pod"
    assert scraped.ask(signals.WORKING_SET) == {key: 900e6}
    assert before - 8 < scraped.ask(signals.SAMPLED_AT)[key] < time.time() - 6, "the sample's time, not the question's"
    assert set(signals.MEMORY) == {
        signals.PROCESS_KILLS,
        signals.PROCESS_KILLS_BEFORE,
        signals.PEAK,
        signals.WORKING_SET,
        signals.SAMPLED_AT,
        signals.ANONYMOUS_MEMORY,
    }, "this test names them all"


def test_anonymous_memory_is_one_question_of_three_parts(scraped: Scraped) -> None:
    def parts() -> dict[str, dict[str, float]]:
        found = asked(scraped.prometheus.url, signals.ANONYMOUS_MEMORY, matchers={"part": "1"})
        told = signals.parted(found, signals.ANONYMOUS_MEMORY)
        return {name: {one.labels["pod"]: one.value for one in series} for name, series in told.items()}

    def line(pod: str, size: float) -> Line:
        return Line(RSS, size, labelled(pod, LIVING, part="1"))

    assert parts() == {"anonymous": {}, "anonymous_day": {}, "anonymous_before": {}}
    scraped.show(line("high", 700e6), line("new", 2e8))
    scraped.show(line("high", 300e6), line("new", 2e8))
    assert parts()["anonymous_day"] == {"high": 700e6, "new": 2e8}
    assert parts()["anonymous_before"] == {}, "nobody knows what was a day ago"
    scraped.wait(lambda: parts()["anonymous"] == {"high": 300e6, "new": 2e8}, "the window", WINDOW + 10)


def test_the_working_set_of_a_day_is_its_largest(scraped: Scraped) -> None:
    for size in (700e6, 300e6):
        scraped.show(Line(USED, size, labelled("falling", OTHER)))
    assert scraped.ask(signals.WORKING_SET, pod="falling") == {("falling", "worker", OTHER): 700e6}


def test_values_that_are_no_finite_numbers_or_no_sizes_are_left_out(scraped: Scraped) -> None:
    ids = [str(number) * 64 for number in range(5)]
    values = (float("nan"), float("inf"), float("-inf"), 12.0, 1e300)
    scraped.show(*(Line(PEAK, value, labelled("odd", one)) for one, value in zip(ids, values, strict=True)))
    assert scraped.ask(signals.PEAK, pod="odd") == {("odd", "worker", ids[3]): 12}


def test_label_values_cannot_break_out_of_the_question(scraped: Scraped) -> None:
    texts = dict(enumerate(NASTY))
    scraped.show(*(Line(PEAK, number, labelled(f"nasty{number}", OTHER, note=text)) for number, text in texts.items()))
    for number, text in texts.items():
        assert scraped.ask(signals.PEAK, note=text) == {(f"nasty{number}", "worker", OTHER): number}
        assert scraped.ask(signals.PEAK, namespace=text) == {}
    assert scraped.ask(signals.PEAK, note='x"} or container_memory_max_usage_bytes{pod=~".+') == {}


@pytest.mark.parametrize("label", ['x="1"} or up{a', "", "9th", "app.kubernetes.io/name", "clus ter", "é"])
def test_a_label_name_that_is_none_is_never_sent(label: str) -> None:
    with serving(json.dumps(GOOD)) as server:
        with pytest.raises(Misconfigured, match=r"spec\.metrics: .* use letters, digits"):
            asked(server.url, matchers={label: "1"})
        assert server.asked == []


def test_match_labels_narrow_and_never_widen(scraped: Scraped) -> None:
    scraped.show(
        Line(PEAK, 1, labelled("w0", LIVING, cluster="prod")),
        Line(PEAK, 2, labelled("w0", OTHER, cluster="stage")),
        Line(PEAK, 3, labelled("w0", DEAD, cluster="prod", namespace="elsewhere")),
    )
    assert scraped.ask(signals.PEAK, cluster="prod") == {("w0", "worker", LIVING): 1}
    assert scraped.ask(signals.PEAK, cluster="prod", namespace="n") == {("w0", "worker", LIVING): 1}
    found = asked(scraped.prometheus.url, matchers={"namespace": "elsewhere", "cluster": "prod"})
    assert [container_id(one) for one in found] == [LIVING], "whoever writes a policy does not choose the namespace"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"name": LIVING, "id": f"/kubepods/burstable/pod1-2/{LIVING}"}, LIVING),
        ({"name": LIVING, "id": f"/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-{LIVING}.scope"}, LIVING),
        ({"name": "k8s_worker_w_n_1-2_0", "id": f"/kubepods.slice/pod1.slice/crio-{LIVING}.scope"}, LIVING),
        ({"name": "k8s_worker_w_n_1-2_0", "id": f"/kubepods.slice/pod1.slice/docker-{LIVING}.scope"}, LIVING),
        ({"id": f"/kubepods/besteffort/pod1/{LIVING}"}, LIVING),
        ({"name": LIVING}, LIVING),
        ({}, ""),
    ],
)
def test_the_containers_id_is_found_with_every_runtime(labels: Mapping[str, str], expected: str) -> None:
    metric = {"pod": "w", "container": "worker", **labels}
    answer = {"data": {"result": [{"metric": metric, "value": [0, "1"]}]}}
    with serving(json.dumps(answer)) as server:
        assert [container_id(one) for one in asked(server.url)] == [expected]


# What a real Airflow's exporter says: lines of the official chart's StatsD exporter, copied from real runs.

AIRFLOW_3 = """
airflow_scheduler_heartbeat{type="counter"} 13
airflow_executor_open_slots 0
airflow_executor_open_slots{executor="CeleryExecutor"} 0
airflow_executor_running_tasks 32
airflow_executor_running_tasks{executor="CeleryExecutor"} 32
airflow_pool_open_slots 0
airflow_pool_open_slots{pool="default_pool"} 97
airflow_pool_open_slots{pool="small"} 0
airflow_pool_queued_slots 29
airflow_pool_queued_slots_default_pool 29
airflow_pool_queued_slots_small 0
airflow_pool_running_slots 2
airflow_pool_running_slots_default_pool 2
airflow_pool_running_slots_small 1
airflow_pool_scheduled_slots 10
airflow_pool_deferred_slots 1
airflow_pool_deferred_slots_default_pool 3
airflow_pool_deferred_slots_small 1
airflow_pool_scheduled_slots_default_pool 8
airflow_pool_scheduled_slots_small 10
airflow_ti_queued 29
airflow_ti_queued{dag_id="short_tasks",queue="default",task_id="numbers"} 0
airflow_ti_queued{dag_id="short_tasks",queue="default",task_id="work"} 29
airflow_ti_running 2
airflow_ti_running{dag_id="short_tasks",queue="default",task_id="work"} 2
airflow_ti_start 24
airflow_ti_start_short_tasks_work 23
airflow_task_duration_sum 64.940539
airflow_task_duration_count 22
airflow_task_duration{dag_id="short_tasks",task_id="numbers",quantile="0.99"} 0.050178
airflow_task_duration_sum{dag_id="short_tasks",task_id="numbers"} 0.050178
airflow_task_duration_count{dag_id="short_tasks",task_id="numbers"} 1
airflow_task_duration{dag_id="short_tasks",task_id="work",quantile="0.99"} 3.750219
airflow_task_duration_sum{dag_id="short_tasks",task_id="work"} 64.890361
airflow_task_duration_count{dag_id="short_tasks",task_id="work"} 21
airflow_scheduler_critical_section_query_duration_sum 0.12026141800000001
airflow_scheduler_critical_section_query_duration_count 53
airflow_scheduler_critical_section_duration_sum 0.544398663
airflow_scheduler_critical_section_duration_count 92
airflow_scheduler_tasks_starving 0
airflow_ti_scheduled{dag_id="short_tasks",queue="default",task_id="work"} 8
airflow_scheduler_scheduler_loop_duration_sum 15.9
airflow_scheduler_scheduler_loop_duration_count 53
airflow_triggerer_heartbeat 14
airflow_triggerer_capacity_left 998
airflow_triggerer_capacity_left_host1 998
airflow_triggers_running 2
airflow_triggers_running_host1 2
airflow_dag_processing_import_errors 1
airflow_dag_processing_file_path_queue_size 1
airflow_dag_processing_total_parse_time 12.5
airflow_dag_processing_last_run_seconds_ago 11.298202
airflow_dag_processing_last_run_seconds_ago{dag_file="short_tasks"} 10.057375
airflow_dag_processing_last_run_seconds_ago{dag_file="slow_000"} 9.5
airflow_dag_processing_last_run_seconds_ago{dag_file="slow_006"} 11.298202
airflow_dag_processing_last_duration{quantile="0.99"} 0.0022564359999999997
airflow_dag_processing_last_duration_sum 0.039306
airflow_dag_processing_last_duration_count 35
airflow_dag_processing_last_duration_dags_folder_short_tasks{quantile="0.99"} 0.000280528
airflow_dag_processing_last_duration_dags_folder_short_tasks_sum 0.0027396830000000006
airflow_dag_processing_last_duration_dags_folder_short_tasks_count 18
airflow_dag_processing_last_duration_dags_folder_slow_000{quantile="0.99"} 0.0022564359999999997
airflow_dag_processing_last_duration_dags_folder_slow_000_sum 0.017461735
airflow_dag_processing_last_duration_dags_folder_slow_000_count 8
airflow_dag_processing_last_duration_dags_folder_slow_006{quantile="0.99"} 0.0022194
airflow_dag_processing_last_duration_dags_folder_slow_006_sum 0.019104740999999998
airflow_dag_processing_last_duration_dags_folder_slow_006_count 9
"""

AIRFLOW_2 = """
airflow_scheduler_heartbeat{type="counter"} 18
airflow_executor_open_slots 0
airflow_executor_running_tasks 32
airflow_pool_open_slots 96
airflow_pool_open_slots{pool="default_pool"} 96
airflow_pool_queued_slots 30
airflow_pool_queued_slots_default_pool 30
airflow_pool_running_slots 2
airflow_pool_running_slots_default_pool 2
airflow_pool_scheduled_slots 6
airflow_pool_deferred_slots_default_pool 0
airflow_pool_scheduled_slots_default_pool 6
airflow_ti_start 27
airflow_local_task_job_task_exit_812_short_tasks_work__9 1
airflow_local_task_job_task_exit_813_short_tasks_work_0 1
airflow_task_duration{dag_id="short_tasks",task_id="work",quantile="0.99"} 3.087244294
airflow_task_duration_sum{dag_id="short_tasks",task_id="work"} 73.272266127
airflow_task_duration_count{dag_id="short_tasks",task_id="work"} 24
airflow_scheduler_critical_section_query_duration_sum 0.11982793500000002
airflow_scheduler_critical_section_query_duration_count 43
airflow_scheduler_critical_section_duration_sum 0.544398663
airflow_scheduler_critical_section_duration_count 92
airflow_scheduler_tasks_starving 0
airflow_scheduler_scheduler_loop_duration_sum 8.6
airflow_scheduler_scheduler_loop_duration_count 43
airflow_triggerer_heartbeat 14
airflow_triggers_running 2
airflow_dag_processing_import_errors 0
airflow_dag_processing_file_path_queue_size 2
airflow_dag_processing_total_parse_time 2.896518646000004
airflow_dag_processing_last_run_seconds_ago{dag_file="short_tasks"} 12.595988
airflow_dag_processing_last_run_seconds_ago{dag_file="slow_000"} 9.636681
airflow_dag_processing_last_duration_sum 18.780289999999997
airflow_dag_processing_last_duration_count 24
airflow_dag_processing_last_duration_short_tasks_sum 3.3009109999999997
airflow_dag_processing_last_duration_short_tasks_count 17
airflow_dag_processing_last_duration_slow_000_sum 15.479378999999998
airflow_dag_processing_last_duration_slow_000_count 7
"""

COUNTERS = re.compile(r"_(sum|count|total)$|^airflow_ti_start|^airflow_\w+_heartbeat$")
AGES = "airflow_dag_processing_last_run_seconds_ago"


@dataclass(frozen=True)
class Page:
    """Lines of an exporter, with more labels. Counters grow by a tenth a second, the ages of parses with the time."""

    text: str
    labels: Mapping[str, str]
    begun: float
    still: bool = False
    """Nothing moves."""
    age: float | None = None
    """Seconds: the samples are as old."""

    def __str__(self) -> str:
        passed = 0.0 if self.still else time.time() - self.begun
        return "".join(self._lines(passed))

    def _lines(self, passed: float) -> Iterator[str]:
        for line in self.text.strip().splitlines():
            series, _, told = line.rpartition(" ")
            metric, _, inside = series.partition("{")
            labels = dict(re.findall(r'(\w+)="([^"]*)"', inside))
            value = float(told)
            if COUNTERS.search(metric):
                value *= 1 + passed / 10
            elif metric == AGES:
                value += passed
            yield str(Line(metric, value, {**labels, **self.labels}, self.age))


def paged(text: str, *, still: bool = False, age: float | None = None, **labels: str) -> Page:
    return Page(text, labels, time.time(), still, age)


def known(found: telemetry.Airflow) -> tuple[telemetry.Tasks, telemetry.Parsing]:
    """Both parts of what an Airflow says of itself."""
    assert (found.problem, found.tasks is None, found.parsing is None) == ("", False, False)
    assert found.tasks is not None
    assert found.parsing is not None
    return found.tasks, found.parsing


def test_every_signal_of_both_lines_is_read(scraped: Scraped) -> None:
    scraped.show(
        paged("airflow_pool_running_slots_default_pool 14", still=True, age=310, release="three"),
        paged("airflow_pool_queued_slots_default_pool 40", still=True, age=160, release="three"),
        paged("airflow_pool_queued_slots_default_pool 40", still=True, age=160, release="two"),
    )
    scraped.show(paged("airflow_scheduler_heartbeat 1", still=True, age=45, release="three"))
    scraped.show(paged(AIRFLOW_3, release="three"), paged(AIRFLOW_2, release="two"))
    scope = prometheus.scope(api.Metrics(airflow_match_labels={"release": "three"}, window_seconds=WINDOW), "n")

    def rates() -> dict[str, float]:
        asked = (questions.AIRFLOW_RATES, questions.AIRFLOW_SIGNS, questions.SLOWEST_FILES)
        found = [item for signal in asked for item in asked_for(scraped.prometheus.url, signal, scope)]
        return {item.labels["signal"]: item.value for item in found if "signal" in item.labels}

    def files(line: str, release: str) -> int:
        parsing = scraped.read(line, release=release).parsing
        return 0 if parsing is None else len(parsing.slowest)

    # What needs a history of hours, or nodes, has a test of its own.
    young = {*questions.RATES, *questions.SIGNS, *questions.FILES} - {
        "dag_day",
        "dag_week",
        "task_memory",
    }
    scraped.wait(lambda: set(rates()) == young, "every rate")
    # Looks are a minute apart by the clock: more may have come meanwhile.
    now = rates()
    assert now["busy_day"] == 14
    assert 1 <= now["busy_day_samples"] <= 10
    # Parses by file are looked at every 15 s, and a rate needs two looks.
    scraped.wait(lambda: (files("3", "three"), files("2", "two")) == (3, 2), "rates by file", WINDOW + 15)
    tasks, parsing = known(scraped.read("3", release="three"))
    found = scraped.read("3", release="three")
    assert found.loop == pytest.approx(15.9 / 53, rel=0.05)
    assert (found.import_errors, found.triggerer) == (1, Triggerer(running=2, free=998, deferred=4))
    assert (found.beats or 0) > 1
    found = scraped.read("2", release="two")
    assert found.loop == pytest.approx(8.6 / 43, rel=0.05)
    assert (found.import_errors, found.triggerer) == (0, None)
    small = telemetry.Pool("small", open=0, running=1, queued=0, scheduled=10, open_least=0)
    assert tasks.pools == (telemetry.Pool("default_pool", 97, 2, 29, scheduled=8, open_least=97), small)
    assert (tasks.open_least, tasks.starving, tasks.held) == (0, 0, ()), "held is known after five minutes"
    assert small.full
    assert (tasks.queued, tasks.running) == ({"default": 29}, {"default": 2})
    assert (tasks.open_slots, tasks.handed_out, tasks.parallelism) == (0, 32, 32)
    assert (tasks.handed_out_least, tasks.waiting_least, tasks.queued_least) == (32, 29, {"default": 29})
    assert tasks.quiet is None, "not known before two minutes"
    assert (tasks.ran, tasks.killed) == ({"default": {"short_tasks.work": 2}}, ()), "not what only waited"
    assert tasks.duration == pytest.approx(64.940539 / 22, rel=0.05)
    assert tasks.longest == 3.750219
    assert tasks.critical == pytest.approx(0.12026 / 53, rel=0.05)
    assert (parsing.files, parsing.queue, parsing.loop) == (3, 1, 12.5)
    assert parsing.seconds == pytest.approx(1000 * 0.039306 / 35, rel=0.05)
    assert 11.3 < parsing.oldest < 90
    names = [item.name for item in parsing.slowest]
    assert names == [f"dags_folder_{name}" for name in ("slow_000", "slow_006", "short_tasks")]
    assert parsing.slowest[0].seconds == pytest.approx(1000 * 0.017461735 / 8, rel=0.05)
    tasks, parsing = known(scraped.read("2", release="two"))
    assert tasks.pools == (telemetry.Pool("default_pool", 96, 2, 30, scheduled=6, open_least=96),)
    assert (tasks.queued, tasks.running, tasks.parallelism, tasks.busy_day) == ({}, {}, 32, None)
    assert (tasks.handed_out_least, tasks.waiting_least, tasks.queued_least, tasks.quiet) == (32, 30, {}, None)
    assert tasks.duration == pytest.approx(73.272 / 24, rel=0.05)
    assert (tasks.ran, tasks.killed) == ({}, ("short_tasks_work",))
    assert [item.name for item in parsing.slowest] == ["slow_000", "short_tasks"]
    assert parsing.slowest[0].seconds == pytest.approx(15.479 / 7, rel=0.05)
    assert parsing.seconds == pytest.approx(18.78 / 24, rel=0.05)


def test_a_file_that_is_gone_is_not_counted_though_its_gauge_stays(scraped: Scraped) -> None:
    gone = 'airflow_dag_processing_last_run_seconds_ago{dag_file="gone"} 7'
    scraped.show(paged(gone, still=True, age=130, release="gone"))
    scraped.show(paged(AIRFLOW_3, release="gone"), paged(gone, still=True, release="gone"))
    scraped.wait(lambda: scraped.read("3", release="gone").parsing is not None, "rates")
    parsing = scraped.read("3", release="gone").parsing
    assert parsing is not None
    assert parsing.files == 3


def test_the_pace_of_the_busiest_dags_is_known_against_what_they_did_before(scraped: Scraped) -> None:
    pages = []
    count = {"steady": 0, "wild": 0, "weekly": 0, "rare": 0, "new": 0}
    for age in range(520, 0, -5):
        count["steady"] += 16
        count["wild"] += 2 if age > 45 else 200
        count["weekly"] += 100 if 360 < age <= 480 or age <= 45 else 1
        count["rare"] += age in {210, 30}
        count["new"] += 60 if age < 60 else 0
        # Half of each DAG's tasks are of another name.
        lines = [
            f'airflow_task_duration_count{{dag_id="{dag}",task_id="{task}"}} {number / 2}\n'
            for dag, number in count.items()
            for task in ("one", "two")
            if number
        ]
        twin = f"airflow_task_duration_count {sum(count.values())}\n"
        pages.append(paged("".join([*lines, twin]), still=True, age=age, release="paces"))
    # The oldest first, in one scrape: each line has its own time.
    scraped.show(*pages)
    # A week is 400 s here, a day 120 s, six hours are 60 s and ten minutes 30 s.
    small = questions.pace(CHART.ends, "30s", "120s", "60s", "30s", "400s")
    promql = " or ".join(f'label_replace({one},"signal","{name}","","")' for name, one in small.items())
    scope = prometheus.scope(api.Metrics(airflow_match_labels={"release": "paces"}, window_seconds=WINDOW), "n")
    found = asked_for(scraped.prometheus.url, Signal("paces", promql, "tasks", ""), scope)
    told = {(one.labels.get("dag_id"), one.labels["signal"]): one.value for one in found}
    assert {dag for dag, _ in told} == {None, "wild", "weekly", "new"}, "three, and the sum"
    assert told["wild", "dag_now"] > 700
    assert told["wild", "dag_day"] == pytest.approx(12)
    assert told["weekly", "dag_day"] == pytest.approx(6)
    assert told["weekly", "dag_week"] == pytest.approx(600)
    assert told["new", "dag_now"] > 100
    assert not {("new", "dag_day"), ("new", "dag_week")} & {*told}
    assert told[None, "dags_now"] > told["wild", "dag_now"] + told["weekly", "dag_now"] + told["new", "dag_now"]


def test_the_least_of_two_minutes_and_the_last_start_of_a_task_are_known(scraped: Scraped) -> None:
    def shown(handed_out: int, starts: int, age: float) -> Page:
        text = (
            f"airflow_executor_running_tasks {handed_out}\nairflow_pool_queued_slots_default_pool {handed_out - 20}\n"
            f'airflow_ti_queued{{dag_id="a",task_id="t",queue="default"}} {handed_out - 21}\n'
            f"airflow_ti_start {starts}\nairflow_scheduler_heartbeat {1000 - age}\n"
        )
        return paged(text, still=True, age=age, release="least")

    def tasks() -> telemetry.Tasks | None:
        return scraped.read("3", release="least").tasks

    for age in (400, 370, 340, 310, 280):
        scraped.show(shown(40, 1000 - age, age))
    for age in (250, 220, 190, 160, 130, 100, 70, 40):
        scraped.show(shown(30 if age == 70 else 32, 720, age))
    scraped.show(shown(32, 720, 10))
    scraped.wait(lambda: tasks() is not None, "a heartbeat")
    found = tasks()
    assert found is not None
    assert (found.handed_out_least, found.waiting_least, found.queued_least) == (30, 10, {"default": 9})
    assert found.quiet is not None
    # The last start was at some time between two samples, 310 s and 280 s before; the looks are 15 s apart.
    assert 280 <= found.quiet <= 370


def test_dags_that_are_held_back_are_known_with_what_they_did_meanwhile(scraped: Scraped) -> None:
    def shown(age: float) -> Page:
        number = round((330 - age) / 10)
        # Longer than what lies between two looks.
        dip = 1 if 12 <= number <= 19 else 0
        held = {"capped": 5 + number // 7 % 3, "waits": 40, "late": 9, "once": 9 * dip, "gone": 7 * (number < 20)}
        text = f"airflow_scheduler_heartbeat {1000 - age}\nairflow_ti_scheduled 3\n"
        for dag, scheduled in held.items():
            if dag == "late" and number < 10:
                continue
            labels = f'dag_id="{dag}",queue="default"'
            text += f'airflow_ti_scheduled{{{labels},task_id="a"}} {scheduled - scheduled // 2}\n'
            text += f'airflow_ti_scheduled{{{labels},task_id="b"}} {scheduled // 2}\n'
            text += (
                f'airflow_ti_running{{{labels},task_id="a"}} {12 - dip}\nairflow_ti_queued{{{labels},task_id="b"}} 4\n'
            )
            text += f'airflow_task_duration_count{{dag_id="{dag}",task_id="a"}} {100 + 6 * number}\n'
        text += f'airflow_pool_open_slots{{pool="a.pool"}} {90 + 2 * number}\nairflow_pool_open_slots 0\n'
        return paged(text, still=True, age=age, release="held")

    scraped.show(*(shown(age) for age in range(330, 0, -10)))
    found = scraped.read("3", release="held").tasks
    assert found is not None
    assert [(one.dag, one.scheduled, one.least, one.most) for one in found.held] == [
        ("capped", 5, 15, 16),
        ("waits", 40, 15, 16),
    ], "not one that was not held all the time, or is not known for so long"
    assert found.held[0].ended == pytest.approx(180, abs=15)
    scope = prometheus.scope(api.Metrics(airflow_match_labels={"release": "held"}), "n")
    (pool,) = [
        item
        for item in asked_for(scraped.prometheus.url, questions.QUEUES, scope)
        if item.labels.get("signal") == "open_least"
    ]
    assert pool.labels["pool"] == "a.pool"
    assert 90 < pool.value < 105


def test_the_largest_tasks_of_airflow_2_are_known_in_bytes_of_the_smallest_node(scraped: Scraped) -> None:
    def node(name: str, size: float) -> str:
        labels = f'instance="{name}",namespace="n",pod="{name}",container="worker",id="/kubepods/pod1/{LIVING}"'
        return f'machine_memory_bytes{{instance="{name}"}} {size}\ncontainer_memory_working_set_bytes{{{labels}}} 5e8\n'

    def shown(load: float, small: float, age: float) -> Page:
        text = f"airflow_scheduler_heartbeat {1000 - age}\nairflow_task_mem_usage_etl_load {load}\n"
        text += f"airflow_task_mem_usage_etl_small {small}\nairflow_task_mem_usage_etl_ended 60\n"
        # It holds as much from its beginning on.
        text += "airflow_task_mem_usage_etl_new 30\n" if age < 300 else ""
        text += node("one", 10e9) + node("two", 20e9) + 'machine_memory_bytes{instance="without_workers"} 1e9\n'
        return paged(text, still=True, age=age, release="hogs")

    long_ago = ((2, age) for age in range(2050, 250, -250))
    lately = ((10, 250), (25, 190), (12, 130), (12, 70), (3, 10))
    scraped.show(*(shown(load, 1 + age / 1000, age) for load, age in (*long_ago, *lately)))
    metrics = api.Metrics(match_labels={"release": "hogs"}, airflow_match_labels={"release": "hogs"})
    # All lines come from one exporter here, so what the lines call their instance has another name.
    promql = questions.TASK_MEMORY.replace("(instance)", "(exported_instance)")

    def sizes(namespace: str) -> dict[str, float]:
        signal, scope = Signal("hogs", promql, "bytes", ""), prometheus.scope(metrics, namespace)
        return {item.labels["task"]: item.value for item in asked_for(scraped.prometheus.url, signal, scope)}

    found = sizes("n")
    assert {*found} == {"etl_load", "etl_small", "etl_new"}, "not one that has long ended"
    assert found["etl_new"] == pytest.approx(3e9)
    # Looks are a minute apart by the clock, and so are the samples: each look has one of its own.
    assert found["etl_load"] == pytest.approx(2.5e9)
    assert sizes("nowhere") == {}, "no node, no bytes"


def test_an_airflow_without_series_is_told(scraped: Scraped) -> None:
    assert "has no series of this Airflow" in scraped.read("3", release="nowhere").problem


def test_several_airflows_in_one_prometheus_are_told_and_a_label_singles_one_out(scraped: Scraped) -> None:
    one = paged(AIRFLOW_3, fleet="both", namespace="one")
    other = paged(AIRFLOW_2, fleet="both", namespace="other")
    scraped.show(one, other)
    scraped.wait(lambda: scraped.read("3", fleet="both", namespace="one").tasks is not None, "rates")
    found = scraped.read("3", fleet="both")
    assert (found.tasks, found.parsing) == (None, None)
    assert "has series of 2 Airflows" in found.problem
    assert "namespace=one" in found.problem
    assert "spec.metrics.airflowMatchLabels" in found.problem
    tasks = scraped.read("3", fleet="both", namespace="one").tasks
    assert tasks is not None
    assert tasks.waiting_in(None) == 29


def test_files_that_have_just_come_are_named_with_all_their_parses(scraped: Scraped) -> None:
    scraped.show(paged(AIRFLOW_3, still=True, release="fresh"))
    scope = prometheus.scope(api.Metrics(airflow_match_labels={"release": "fresh"}, window_seconds=WINDOW), "n")
    found = asked_for(scraped.prometheus.url, questions.SLOWEST_FILES, scope)
    seconds = {item.labels["file"]: item.value for item in found if "signal" not in item.labels}
    assert set(seconds) == {f"dags_folder_{name}" for name in ("slow_000", "slow_006", "short_tasks")}
    assert seconds["dags_folder_slow_000"] == pytest.approx(0.017461735 / 8)


def test_gauges_whose_scheduler_has_stopped_are_not_believed(scraped: Scraped) -> None:
    scraped.show(paged(AIRFLOW_3, still=True, release="stopped"))
    scraped.show(paged(AIRFLOW_3, still=True, release="stopped"))
    found = scraped.read("3", release="stopped")
    assert (found.tasks, found.parsing) == (None, None)
    assert found.problem.startswith("The scheduler's heartbeat has been scraped for a moment only")
    assert not found.still
    scraped.show(paged(AIRFLOW_3, still=True, age=45, release="dead"))
    scraped.show(paged(AIRFLOW_3, still=True, release="dead"))
    found = scraped.read("3", release="dead")
    assert (found.tasks, found.parsing) == (None, None)
    assert found.problem.startswith("The scheduler's heartbeat did not move in three minutes")
    assert found.still


# What containers do, as cAdvisor says it.


def cadvisor(container: str) -> str:
    """Lines of a real cAdvisor for one node and one container on it, and for the pod around it."""
    labels = f'container="worker",id="/kubepods/burstable/pod1-2/{container}",name="{container}",namespace="n",pod="c0"'
    around = 'container="",id="/kubepods/burstable/pod1-2",name="",namespace="n",pod="c0"'
    return f"""
container_cpu_usage_seconds_total{{container="",cpu="total",id="/",image="",name="",namespace="",pod=""}} 15
machine_cpu_cores{{boot_id="b50d373b",machine_id="3d1219c7",system_uuid="3d1219c7"}} 2
container_cpu_usage_seconds_total{{cpu="total",{labels}}} 5
container_cpu_usage_seconds_total{{cpu="total",{around}}} 6
container_cpu_cfs_periods_total{{{labels}}} 100
container_cpu_cfs_throttled_periods_total{{{labels}}} 30
container_memory_rss{{{labels}}} 4e8
container_memory_working_set_bytes{{{labels}}} 5e8
container_memory_working_set_bytes{{{around}}} 6e8
"""


def test_every_signal_of_containers_is_answered_by_container(scraped: Scraped) -> None:
    key = ("c0", "worker", LIVING)
    scraped.show(paged(cadvisor(LIVING), still=True, cluster="cpu"))
    scraped.show(paged(cadvisor(LIVING), cluster="cpu"))
    scraped.wait(lambda: all(scraped.ask(signal, cluster="cpu") for signal in signals.CONTAINERS), "rates")
    assert scraped.ask(signals.CPU, cluster="cpu").keys() == {key}, "nor the pod, nor the node"
    assert scraped.ask(signals.THROTTLED, cluster="cpu") == {key: pytest.approx(0.3, rel=0.05)}
    share = scraped.ask(signals.NODE_CPU, cluster="cpu")[key] / scraped.ask(signals.CPU, cluster="cpu")[key]
    assert share == pytest.approx(1.5, rel=0.5), "of the node's two cores, by all on it"


def test_what_a_policy_of_cpu_alone_asks_for_is_the_same_in_one_question(scraped: Scraped) -> None:
    scraped.show(paged(cadvisor(LIVING), still=True, cluster="cores"))
    scraped.show(paged(cadvisor(LIVING), cluster="cores"))
    alone = [signals.CPU, signals.THROTTLED]
    scraped.wait(lambda: all(scraped.ask(signal, cluster="cores") for signal in alone), "rates")
    parts = signals.parted(asked(scraped.prometheus.url, signals.CORES, matchers={"cluster": "cores"}), signals.CORES)
    for signal in alone:
        (found,) = (one.value for one in parts[signal.name])
        (told,) = scraped.ask(signal, cluster="cores").values()
        assert found == pytest.approx(told, rel=0.05)
    usual, with_cpu = observe.wanted(airflow=False), observe.wanted(airflow=False, cpu=True)
    assert {*with_cpu} - {*usual} == {signals.CORES}
    assert observe.wanted(airflow=True, cpu=True) == observe.wanted(airflow=True), "it is asked already"


def test_the_nodes_cpu_is_told_for_every_container_on_it(scraped: Scraped) -> None:
    both = cadvisor(LIVING) + cadvisor(OTHER).replace('pod="c0"', 'pod="c1"').split("cores", 1)[1].split("\n", 1)[1]
    scraped.show(paged(both, cluster="shared"))
    scraped.wait(lambda: len(scraped.ask(signals.NODE_CPU, cluster="shared")) == 2, "rates")


@pytest.mark.parametrize(
    "signal",
    [*signals.MEMORY, signals.GROWTH, *signals.CONTAINERS, signals.CORES, signals.HOURLY_CORES, *questions.AIRFLOW],
    ids=lambda one: one.name,
)
def test_every_question_is_promql_whatever_the_labels_are(scraped: Scraped, signal: Signal) -> None:
    for number, text in enumerate(("", *NASTY)):
        labels = {} if not text else {"note": text}
        metrics = api.Metrics(match_labels=labels, airflow_match_labels=labels, window_seconds=WINDOW + number)
        asked_for(scraped.prometheus.url, signal, prometheus.scope(metrics, "no-such-namespace"))


# One look, at the real API server.


@pytest.fixture
def airflow(control_plane: ControlPlane, needs: Callable[..., None]) -> Iterator[PlayedAirflow]:
    """One worker that runs."""
    needs("prometheus")
    with played_airflow(control_plane, f"observed-{zlib.crc32(str(time.time()).encode()):08x}") as airflow:
        airflow.deploy("worker", 1, {"limits": {"memory": "1Gi"}})
        deadline = time.monotonic() + WAIT_SECONDS
        while not airflow.pods():
            assert time.monotonic() < deadline, "the pod was never made"
            time.sleep(0.1)
        airflow.run_all()
        yield airflow


def looked(
    airflow: PlayedAirflow,
    url: str,
    /,
    now: datetime | None = None,
    source: str = "default",
    **fields: Any,  # noqa: ANN401 - any field of the spec
) -> Observation:
    """One observation."""

    async def look() -> Observation:
        known = {"airflow": {"release": "airflow"}, "metrics": {"source": source}}
        spec = api.Spec.model_validate({**known, **fields})
        sources = {"default": Prometheus("default", Source(url=url))}
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            return await observe.observe(
                cluster, sources.get(source), None, spec, airflow.namespace, now or datetime.now(UTC)
            )

    return asyncio.run(look())


def test_the_series_of_a_dead_container_are_not_those_of_the_living_one(
    scraped: Scraped, airflow: PlayedAirflow
) -> None:
    def lines(container_id: str, kills: float, peak: float) -> list[Line]:
        labels = {**labelled(name, container_id, namespace=airflow.namespace), "id": f"/kubepods/pod1/{container_id}"}
        return [Line(KILLS, kills, labels, 1), Line(USED, 1e8, labels, 1), Line(PEAK, peak, labels, 1)]

    (pod,) = airflow.pods()
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    scraped.show(*lines(f"{uid}-0", 7, 1e9))
    usage = looked(airflow, scraped.prometheus.url).workloads[0].pods[0].usage
    assert usage.process_kills is not None
    assert usage.peak is not None
    assert (usage.process_kills.value, usage.peak.value) == (7, 1e9)
    airflow.kill(pod)
    usage = looked(airflow, scraped.prometheus.url).workloads[0].pods[0].usage
    assert (usage.process_kills, usage.peak) == (None, None), "the series of the dead one linger"
    scraped.show(*lines(f"{uid}-1", 0, 3e8))
    seen = looked(airflow, scraped.prometheus.url)
    usage = seen.workloads[0].pods[0].usage
    assert usage.process_kills is not None
    assert usage.peak is not None
    assert (usage.process_kills.value, usage.peak.value) == (0, 3e8)
    assert seen.metrics.state is MetricsState.FRESH
    later = looked(airflow, scraped.prometheus.url, datetime.now(UTC) + timedelta(seconds=400))
    assert later.metrics.state is MetricsState.STALE
    assert later.workloads[0].pods[0].usage.peak is None


def test_a_look_without_metrics_says_why_and_still_sees_the_pods(scraped: Scraped, airflow: PlayedAirflow) -> None:
    absent = looked(airflow, scraped.prometheus.url)
    assert absent.metrics.state is MetricsState.ABSENT
    assert "spec.metrics.matchLabels" in absent.metrics.message
    unanswered = looked(airflow, f"http://127.0.0.1:{free_port()}")
    assert unanswered.metrics.state is MetricsState.UNAVAILABLE
    assert "(no connection)" in unanswered.metrics.message
    unknown = looked(airflow, scraped.prometheus.url, source="other")
    assert "other is not one of the operator's" in unknown.metrics.message
    assert absent.workloads == unanswered.workloads == unknown.workloads
    assert len(absent.workloads[0].pods) == 1


def test_what_ran_before_a_kill_is_told_from_one_look_to_the_next(scraped: Scraped, airflow: PlayedAirflow) -> None:
    (pod,) = airflow.pods()
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    own = {**labelled(name, f"{uid}-0", namespace=airflow.namespace), "id": f"/kubepods/pod1/{uid}-0"}
    bounds = {"memory": {"min": "512Mi", "max": "4Gi"}, "concurrency": {"min": 1, "max": 8}}
    spec = {
        "airflow": {"release": "airflow", "version": "3"},
        "metrics": {"airflowMatchLabels": {"release": "ran"}, "windowSeconds": WINDOW},
        "workers": [{"name": "default", **bounds}],
    }
    policy = {"metadata": {"namespace": airflow.namespace, "name": "p", "uid": "u", "generation": 1}, "spec": spec}
    known = reconcile.NOTHING

    async def look() -> reconcile.Look:
        sources = {"default": Prometheus("default", Source(url=scraped.prometheus.url))}
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            return await reconcile.look(cluster, sources, None, policy, datetime.now(UTC), known)

    def show(kills: int) -> None:
        killed = [Line(KILLS, kills, own, 1), Line(USED, 1e8, own, 1), Line(PEAK, 1073741824, own, 1)]
        scraped.show(*killed, paged(AIRFLOW_3, release="ran"))

    show(0)
    scraped.wait(lambda: asyncio.run(look()).seen.airflow.tasks is not None, "rates", 2 * WINDOW)
    known = reconcile.Known(witnessed=asyncio.run(look()).witnessed)
    show(1)
    (finding,) = [one for one in asyncio.run(look()).findings if one.reason == "OutOfMemory"]
    assert "In its queues, in this or another worker, ran within two minutes before, as far as seen: short_tasks" in (
        finding.message
    )
    assert ".work (2); one of them took it, or all together did." in finding.message


def test_parse_times_that_cannot_be_are_not_believed(scraped: Scraped, airflow: PlayedAirflow) -> None:
    metrics = {"airflowMatchLabels": {"release": "units"}, "windowSeconds": WINDOW}
    parsing = {"memory": {"min": "512Mi", "max": "4Gi"}, "parsing": {"intervalSeconds": {"min": 15, "max": 600}}}

    def seen(line: str) -> telemetry.Airflow:
        told: dict[str, Any] = {"metrics": metrics, "dagProcessor": parsing}
        told["airflow"] = {"release": "airflow", "version": line}
        return looked(airflow, scraped.prometheus.url, **told).airflow

    airflow.deploy("dag-processor", 1, {"limits": {"memory": "1Gi"}})
    # Seconds, as a mapping of true milliseconds gives them: a second and a half for each parse.
    scraped.show(paged(AIRFLOW_2, release="units"))
    scraped.wait(lambda: seen("2").parsing is not None, "rates", 2 * WINDOW)
    scraped.wait(lambda: bool(seen("3").doubt), "the dag-processor's pod")
    assert seen("3").parsing is None
    assert "parses of 78" in seen("3").doubt
    assert seen("3").tasks is not None, "the rest is believed"
    assert seen("2").doubt == ""


# Servers that are no Prometheus.


def refusal(url: str, seconds: float = 10) -> str:
    """The sentence of the error that a question to `url` ends in, within a second of the time limit."""
    source = Prometheus("main", Source(url=url, timeout_seconds=seconds))
    begun = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        asyncio.run(source.ask(signals.PEAK, scoped()))
    assert time.monotonic() - begun < seconds + 1
    told = str(caught.value)
    assert told.startswith("The metrics source main does not answer as a Prometheus does (")
    return told.partition("(")[2].removesuffix(").")


def test_a_source_that_is_not_there_is_told() -> None:
    assert refusal(f"http://127.0.0.1:{free_port()}", 1) == "no connection"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500, 503])
def test_an_error_status_is_told_without_its_body_and_asked_only_once(status: int) -> None:
    with serving(f"the body with {SECRET}", status) as server:
        assert refusal(server.url) == f"status {status}"
        assert len(server.asked) == 1


def test_a_source_that_says_nothing_or_never_ends_keeps_nobody_longer_than_its_limit() -> None:
    with serving(silent=True) as server:
        assert refusal(server.url, 0.5) == "no answer in time"
    with serving('{"status": "success"', drip=True) as server:
        assert refusal(server.url, 0.5) == "no answer in time"


@pytest.mark.parametrize(
    "body",
    [
        "<html>Sign in</html>",
        "",
        "[]",
        "null",
        "{}",
        '{"status": "success"}',
        '{"status": "success", "data": null}',
        '{"data": {"result": null}}',
        '{"data": {"resultType": "scalar", "result": [1700000000, "1"]}}',
        '{"data": {"resultType": "string", "result": [1700000000, "body"]}}',
        '{"data": {"result": "body"}}',
        '{"data": {"result": [{"value": [0, "1"]}]}}',
        '{"data": {"result": [{"metric": [], "value": [0, "1"]}]}}',
        '{"data": {"result": [{"metric": {}, "value": [0]}]}}',
        '{"data": {"result": [{"metric": {}, "value": [0, "body"]}]}}',
        '{"data": {"result": [{"metric": {"pod": "w", "container": "c", "id": 7}, "value": [0, "1"]}]}}',
        "[" * 100_000,
    ],
)
def test_an_answer_of_another_form_is_told_without_its_words(body: str) -> None:
    with serving(body) as server:
        assert refusal(server.url) == "the answer has another form"


def test_a_redirect_is_not_followed() -> None:
    with serving(json.dumps(GOOD)) as second:
        for status in (301, 302, 307, 308):
            with serving("", status, headers={"Location": f"{second.url}/api/v1/query"}) as first:
                assert refusal(first.url) == f"status {status}"
        assert second.asked == []


def test_the_token_is_read_anew_for_each_question_and_told_to_nobody(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with serving(json.dumps(GOOD)) as server:
        source = Prometheus("main", Source(url=server.url, bearer_token_file=file))

        def ask() -> None:
            asyncio.run(source.ask(signals.PEAK, scoped()))

        for token in (f"{SECRET}-1", f"{SECRET}-2\n"):
            file.write_text(token)
            ask()
            assert server.asked[-1][1]["Authorization"] == f"Bearer {token.strip()}"
        for status, body in ((401, SECRET), (200, SECRET)):
            server.status, server.body = status, body
            with pytest.raises(Unavailable) as caught:
                ask()
            assert SECRET not in str(caught.value)
        for text in (f"{SECRET}\n{SECRET}", "", f"{SECRET}ü"):
            file.write_text(text)
            with pytest.raises(Misconfigured, match="must be one line of ASCII: mend the file") as refused:
                ask()
            assert SECRET not in str(refused.value)
        file.unlink()
        with pytest.raises(Misconfigured, match="The token of the metrics source main cannot be read: No such file"):
            ask()
        assert len(server.asked) == 4
        assert SECRET not in repr(source)


def test_a_slow_source_delays_no_other_one() -> None:
    async def both(slow: str, quick: str) -> float:
        waiting = Prometheus("slow", Source(url=slow, timeout_seconds=3))
        asks = [asyncio.create_task(waiting.ask(signals.PEAK, scoped())) for _ in range(40)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await Prometheus("quick", Source(url=quick)).ask(signals.PEAK, scoped())
        took = time.monotonic() - begun
        for task in asks:
            task.cancel()
        await asyncio.gather(*asks, return_exceptions=True)
        return took

    with serving(silent=True) as slow, serving(json.dumps(GOOD)) as quick:
        assert asyncio.run(both(slow.url, quick.url)) < 1


def test_a_time_that_no_calendar_holds_is_no_reason_to_stop() -> None:
    assert prometheus.moment(1e300).year == 9999
    assert prometheus.moment(-5) == datetime.fromtimestamp(0, UTC)


def test_who_may_not_wait_is_given_the_last_answer_and_without_one_waits() -> None:
    async def ask(server: Server) -> None:
        source = Prometheus("main", Source(url=server.url, timeout_seconds=2))
        first = await source.ask(signals.PEAK, scoped())
        server.silent = True
        begun = time.monotonic()
        assert await source.ask(signals.PEAK, scoped(), patience=0.3) == first
        assert time.monotonic() - begun < 1.5
        with pytest.raises(Unavailable, match="no answer in time"):
            await source.ask(signals.WORKING_SET, scoped(), patience=0.3)
        with pytest.raises(Unavailable, match="no answer in time"):
            await source.ask(signals.PEAK, scoped())

    with serving(json.dumps(GOOD)) as server:
        asyncio.run(ask(server))
