"""Every question of the catalogue, in each naming, to a real Prometheus that was told what real Airflows said."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from airflow_tuner import api, prometheus, signals, telemetry
from airflow_tuner.namings import CHART, NAMINGS, OPENTELEMETRY, TAGGED, Naming, chosen
from airflow_tuner.signals import Series, Signal
from airflow_tuner.telemetry import Pool, Triggerer
from edges import told
from edges.servers import Server, serving
from edges.test_prometheus import NASTY, asked_for
from testbed.processes import Area
from testbed.prometheus import Prometheus as RealPrometheus

WINDOW = 300
TOO_YOUNG = {"dag_day", "dag_week"}
"""They need a history of hours, which `test_prometheus` gives to the chart's."""

TAGGED_FILES = ("3.3.2-tagged", "2.11.2-tagged", "2.11.2-tagged-mapped")
SENT = {"three": "3.3.2"}


@dataclass(frozen=True)
class Source:
    """A Prometheus that scrapes an exporter of ours and receives OpenTelemetry."""

    exporter: Server
    prometheus: RealPrometheus

    def show(self, *pages: str) -> None:
        """Have it scrape these pages."""
        begun = len(self.exporter.asked)
        self.exporter.body = "".join(pages)
        self.prometheus.program.wait_until(lambda: len(self.exporter.asked) > begun + 1, "two scrapes", 20)

    def naming(self, **labels: str) -> Naming | None:
        """What is chosen for the Airflow with these labels."""
        found = asked_for(self.prometheus.url, signals.NAMED, scope(CHART, labels))
        return chosen({one.labels["signal"]: one.value for one in found})

    def parts(self, on: Naming, **labels: str) -> set[str]:
        """The names of what is answered, in this naming."""
        found = [item for series in self.answers(on, labels).values() for item in series]
        return {item.labels["signal"] for item in found if "signal" in item.labels}

    def read(self, on: Naming, line: str, **labels: str) -> telemetry.Airflow:
        """What is made of all answers, in this naming."""
        return telemetry.read(self.answers(on, labels), line)

    def answers(self, on: Naming, labels: Mapping[str, str]) -> dict[str, tuple[Series, ...]]:
        """All questions."""
        own = scope(on, labels)
        return {one.name: signals.canonical(asked_for(self.prometheus.url, one, own), on) for one in signals.AIRFLOW}


def scope(on: Naming, labels: Mapping[str, str]) -> signals.Scope:
    metrics = api.Metrics(airflow_match_labels=dict(labels), window_seconds=WINDOW)
    return replace(prometheus.scope(metrics, "n"), naming=on)


@pytest.fixture(scope="module")
def source(area: Area, needs: Callable[..., None]) -> Iterator[Source]:
    """All that was told, in one."""
    needs("prometheus")
    with serving("", headers={"Content-Type": "text/plain; version=0.0.4"}) as exporter:
        targets = [{"targets": [exporter.url.removeprefix("http://")]}]
        config = {"job_name": "statsd", "honor_labels": True, "static_configs": targets}
        with RealPrometheus(area, [config], interval="1s", otlp=True) as running:
            source = Source(exporter, running)
            source.show(*(told.by_tags(file, release=file) for file in TAGGED_FILES))
            for service, version in SENT.items():
                told.by_opentelemetry(running.url, told.sent(version), service)
            yield source


def labels_of(world: str) -> dict[str, str]:
    """What singles out the Airflow of a file, or of a service."""
    return {"job": world} if world in SENT else {"release": world}


@pytest.mark.parametrize(
    ("world", "on", "absent"),
    [
        ("3.3.2-tagged", TAGGED, set()),
        ("2.11.2-tagged", TAGGED, {"files", "triggers_free"}),
        ("2.11.2-tagged-mapped", TAGGED, {"triggers_free"}),
        ("three", OPENTELEMETRY, {"dag_now", "dags_now"}),
    ],
)
def test_every_part_of_every_question_is_answered_but_what_is_not_told(
    source: Source, world: str, on: Naming, absent: set[str]
) -> None:
    every = {*signals.RATES, *signals.SIGNS, *signals.FILES} - TOO_YOUNG
    # The worlds of Airflow 2 know nothing of queues.
    queues = {"queued_least"} if world in {"3.3.2-tagged", "three"} else set()
    assert source.parts(on, **labels_of(world)) == every - absent | queues
    assert source.naming(**labels_of(world)) is on


BOTH = (
    Pool("default_pool", open=121, running=1, queued=9, scheduled=1),
    Pool("small_one", open=3, running=1, queued=1, scheduled=1),
)


def known(found: telemetry.Airflow) -> tuple[telemetry.Tasks, telemetry.Parsing]:
    assert (found.problem, found.tasks is None, found.parsing is None) == ("", False, False)
    assert found.tasks is not None
    assert found.parsing is not None
    return found.tasks, found.parsing


@pytest.mark.parametrize("world", ["3.3.2-tagged", "2.11.2-tagged", "2.11.2-tagged-mapped", "three"])
def test_pools_executors_and_heartbeats_are_read_in_each_naming(source: Source, world: str) -> None:
    found = source.read(
        OPENTELEMETRY if world in SENT else TAGGED, world[0] if world[0] in "23" else "3", **labels_of(world)
    )
    tasks, parsing = known(found)
    assert tasks.pools == BOTH
    assert tasks.waiting_least == 10
    assert tasks.parallelism == 34
    assert tasks.handed_out == tasks.handed_out_least
    assert tasks.quiet == 0
    assert found.beats is not None
    assert found.beats > 500
    assert parsing.queue == 1
    assert 8 < parsing.oldest < 14


@pytest.mark.parametrize("world", ["3.3.2-tagged", "three"])
def test_airflow_3_tells_queues_and_triggerers_in_each_naming(source: Source, world: str) -> None:
    found = source.read(OPENTELEMETRY if world in SENT else TAGGED, "3", **labels_of(world))
    tasks, _ = known(found)
    assert tasks.queued["heavy"] == tasks.queued_least["heavy"] == 8
    assert tasks.running["default"] > 0
    assert found.triggerer == Triggerer(running=1, free=1001)


def test_units_are_seconds_whatever_the_line_and_the_naming_tell(source: Source) -> None:
    # In each world slow_file sleeps 1.5 s, and tasks take 1 to 3 s and what their start takes.
    for world, on, line in (
        ("3.3.2-tagged", TAGGED, "3"),
        ("2.11.2-tagged", TAGGED, "2"),
        ("2.11.2-tagged-mapped", TAGGED, "2"),
        ("three", OPENTELEMETRY, "3"),
    ):
        found = source.read(on, line, **labels_of(world))
        tasks, parsing = known(found)
        assert parsing.slowest[0].name == "slow_file", world
        assert parsing.slowest[0].seconds == pytest.approx(1.7, abs=0.25), world
        assert tasks.duration == pytest.approx(1.8, abs=0.25), world
        assert tasks.longest is not None, world
        # A quantile is a gauge here, and so one more than it was.
        assert 3 < tasks.longest < 4.5, world
        assert tasks.critical is not None, world
        assert 0.002 < tasks.critical < 0.006, world
        assert tasks.section is not None, world
        assert 0.007 < tasks.section < 0.02, world
        assert found.loop is not None, world
        assert 0.08 < found.loop < 0.3, world


def test_files_that_airflow_2_gives_no_tag_are_counted_by_their_parses(source: Source) -> None:
    for world in ("2.11.2-tagged", "2.11.2-tagged-mapped"):
        _, parsing = known(source.read(TAGGED, "2", **labels_of(world)))
        assert parsing.files == 4, world
        assert {item.name for item in parsing.slowest} == {"slow_file", "loads", "pooled", "broken"}, world
    _, parsing = known(source.read(TAGGED, "3", **labels_of("3.3.2-tagged")))
    assert parsing.files == 3


def test_a_task_that_a_mapping_and_a_tag_both_count_is_counted_once(source: Source) -> None:
    # Behind the mapping, dag.<dag>.<task>.duration and the tagged task.duration become one series.
    mapped, _ = known(source.read(TAGGED, "2", **labels_of("2.11.2-tagged-mapped")))
    alone, _ = known(source.read(TAGGED, "2", **labels_of("2.11.2-tagged")))
    twice, _ = known(source.read(CHART, "2", **labels_of("2.11.2-tagged-mapped")))
    assert mapped.pace is not None
    assert twice.pace is not None
    assert (mapped.pace, mapped.paces) == (alone.pace, alone.paces)
    assert twice.pace > 1.9 * mapped.pace, "so it is not read by the chart's names"
    assert [pool.open for pool in twice.pools] == [121, None], "which lose the pool whose name has a dot"


def test_which_dag_runs_how_many_tasks_is_not_told_by_opentelemetry(source: Source) -> None:
    tasks, _ = known(source.read(OPENTELEMETRY, "3", **labels_of("three")))
    assert (tasks.pace, tasks.paces) == (None, ())


# Several processes, and several sources.


def scheduler(**changes: float) -> list[told.Sent]:
    """The series of the scheduler and of tasks, some with another value."""
    return [
        replace(one, numbers=(changes[name],)) if (name := one.name.rpartition(".")[2]) in changes else one
        for one in told.sent("3.3.2")
        if not one.process.startswith(("dag", "trigger"))
    ]


def test_two_schedulers_that_tell_the_same_by_opentelemetry_count_once(source: Source) -> None:
    for process in ("one-", "other-"):
        told.by_opentelemetry(source.prometheus.url, scheduler(), "two-schedulers", process=process)
    one, two = (source.read(OPENTELEMETRY, "3", job=job).tasks for job in ("three", "two-schedulers"))
    assert one is not None
    assert two is not None
    assert (two.pools, two.queued, two.waiting_least) == (one.pools, one.queued, one.waiting_least)


def test_a_scheduler_that_is_gone_is_not_believed_though_its_series_linger(source: Source) -> None:
    old = scheduler(queued_slots=700, queued=700)
    told.by_opentelemetry(source.prometheus.url, old, "restarted", process="old-", steps=told.STEPS - 14)
    told.by_opentelemetry(source.prometheus.url, scheduler(), "restarted", process="new-")
    lingers = 'airflow_pool_queued_slots{job="restarted"} > 700'
    assert len(source.prometheus.query(lingers)) == 2, "it is in the answers, 210 s old"
    tasks = source.read(OPENTELEMETRY, "3", job="restarted").tasks
    assert tasks is not None
    assert (tasks.pools, tasks.waiting_least) == (BOTH, 10)
    assert tasks.queued == {"default": 5, "heavy": 8}


def test_that_no_task_starts_is_known_by_opentelemetry_where_tasks_told_of_their_start(source: Source) -> None:
    def tasks(job: str) -> telemetry.Tasks:
        found = source.read(OPENTELEMETRY, "3", job=job).tasks
        assert found is not None
        return found

    def send(job: str, *, starts: bool) -> None:
        of_tasks = [one for one in scheduler() if one.process.startswith("task")]
        others = [one for one in scheduler() if not one.process.startswith("task")]
        told.by_opentelemetry(source.prometheus.url, others, job)
        if starts:
            told.by_opentelemetry(source.prometheus.url, of_tasks, job, steps=told.STEPS - 20)

    send("quiet", starts=True)
    send("mute", starts=False)
    # The newest of them was sent 330 s ago; a start counts for two minutes, and looks are 15 s apart.
    quiet = tasks("quiet")
    assert quiet.quiet == pytest.approx(330, abs=25)
    assert quiet.started == 0
    assert tasks("three").quiet == 0
    mute = tasks("mute")
    assert (mute.started, mute.quiet) == (None, None), "nobody knows whether tasks can tell at all"


def test_airflow_2_by_opentelemetry_lacks_too_much_to_be_read(source: Source) -> None:
    told.by_opentelemetry(source.prometheus.url, told.sent("2.11.2"), "two")
    assert source.naming(job="two") is OPENTELEMETRY
    found = source.prometheus.query('count by (pool_name) (airflow_pool_queued_slots{job="two"})')
    assert [one["metric"]["pool_name"] for one in found] == ["default_pool"], "of two pools"
    assert source.prometheus.query('{__name__=~"airflow_.+_milliseconds|airflow_ti_start_total",job="two"}') == []
    assert "Let it send StatsD" in OPENTELEMETRY.unfit["2"]


def test_an_exporter_that_still_shows_what_was_sent_is_not_chosen(source: Source) -> None:
    source.show(told.by_tags("3.3.2-tagged", moved=told.stands, job="moved"))
    assert source.naming(job="moved") is TAGGED, "alone it is all there is"
    told.by_opentelemetry(source.prometheus.url, told.sent("3.3.2"), "moved")
    assert source.naming(job="moved") is OPENTELEMETRY


def test_several_airflows_in_one_prometheus_are_told_in_each_naming(source: Source) -> None:
    for on in (TAGGED, OPENTELEMETRY):
        assert "Name this one's labels in spec.metrics.airflowMatchLabels." in source.read(on, "3").problem


@pytest.mark.parametrize("on", NAMINGS.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("signal", [*signals.AIRFLOW, signals.NAMED], ids=lambda one: one.name)
def test_every_question_is_promql_whatever_the_labels_are(source: Source, signal: Signal, on: Naming) -> None:
    for number, text in enumerate(("", *NASTY)):
        labels = {} if not text else {"note": text}
        metrics = api.Metrics(match_labels=labels, airflow_match_labels=labels, window_seconds=WINDOW + number)
        found = asked_for(source.prometheus.url, signal, replace(prometheus.scope(metrics, "no"), naming=on))
        assert not text or found == (), "nothing has such a label"
