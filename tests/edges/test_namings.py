"""Every question of the catalogue, in each naming, to a real Prometheus that was told what real Airflows said."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from airflow_tuner import api, observe, prometheus, questions, settings, signals, telemetry
from airflow_tuner.namings import CHART, NAMINGS, OPENTELEMETRY, TAGGED, Naming, chosen
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.signals import Series, Signal
from airflow_tuner.telemetry import Pool
from airflow_tuner.triggers import Triggerer
from edges import told
from edges.servers import Server, serving
from edges.test_prometheus import NASTY, asked_for
from testbed.processes import Area
from testbed.prometheus import Prometheus as RealPrometheus

WINDOW = 300
TOO_YOUNG = {"dag_day", "dag_week"}
"""They need a history of hours, which `test_prometheus` gives to the chart's."""
NOT_CAPTURED = {"task_memory", "starving"}
"""They need a node, or a gauge that was not asked for when the series were taken."""
BY_CHANCE = {"ran", "killed", "held", "held_least", "held_most", "held_ended", "open_least"}
"""They are there as tasks happened to run."""


@dataclass(frozen=True)
class World:
    """What a real Airflow told, and what of it the file has."""

    file: str
    on: Naming
    waiting: int
    """Slots of default_pool that wait for a worker; a gauge is one more than in the file."""
    open: int
    """Its open slots."""
    parallelism: int = 34
    absent: frozenset[str] = frozenset()
    """What it does not tell."""
    files: int = 4

    @property
    def line(self) -> str:
        """Airflow's."""
        return self.file[0]

    @property
    def labels(self) -> dict[str, str]:
        """What singles its series out."""
        return {"job": self.file} if self.on is OPENTELEMETRY else {"release": self.file}


OF_2 = frozenset({"triggers_free", "queued_least"})
THREE = World("3.3.2-tagged", TAGGED, 9, 121, files=3)
DEFAULT = World("3.3.2-tagged-mapped", TAGGED, 10, 120)
"""With the old names on, as by default."""
TWO = World("2.11.2-tagged", TAGGED, 9, 121, absent=OF_2 | {"files"})
MAPPED = World("2.11.2-tagged-mapped", TAGGED, 9, 121, absent=OF_2)
SENT = World("3.3.2", OPENTELEMETRY, 9, 121, absent=frozenset({"dag_now", "dags_now"}), files=3)
WORLDS = (THREE, DEFAULT, TWO, MAPPED, SENT)
EACH = pytest.mark.parametrize("world", WORLDS, ids=lambda one: f"{one.on.name}-{one.file}")


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
        found = asked_for(self.prometheus.url, questions.NAMED, scope(CHART, labels))
        return chosen({one.labels["signal"]: one.value for one in found})

    def parts(self, on: Naming, **labels: str) -> set[str]:
        """The names of what is answered, in this naming."""
        found = [item for series in self.answers(on, labels).values() for item in series]
        return {item.labels["signal"] for item in found if "signal" in item.labels}

    def read(self, on: Naming, line: str, **labels: str) -> telemetry.Airflow:
        """What is made of all answers, in this naming."""
        return telemetry.read(self.answers(on, labels), line)

    def known(self, world: World) -> tuple[telemetry.Airflow, telemetry.Tasks, telemetry.Parsing]:
        """The same of a world that tells of everything."""
        found = self.read(world.on, world.line, **world.labels)
        assert (found.problem, found.tasks is None, found.parsing is None) == ("", False, False)
        assert found.tasks is not None
        assert found.parsing is not None
        return found, found.tasks, found.parsing

    def answers(self, on: Naming, labels: Mapping[str, str]) -> dict[str, tuple[Series, ...]]:
        """All questions."""
        own = scope(on, labels)
        return {one.name: signals.canonical(asked_for(self.prometheus.url, one, own), on) for one in questions.AIRFLOW}


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
            source.show(*(told.by_tags(world.file, release=world.file) for world in WORLDS if world.on is TAGGED))
            told.by_opentelemetry(running.url, told.sent(SENT.file), SENT.file)
            yield source


@EACH
def test_every_part_of_every_question_is_answered_but_what_is_not_told(source: Source, world: World) -> None:
    every = {*questions.RATES, *questions.SIGNS, *questions.FILES, "queued_least"} - TOO_YOUNG - NOT_CAPTURED
    found = source.parts(world.on, **world.labels) - BY_CHANCE - NOT_CAPTURED
    assert found == every - world.absent
    assert source.naming(**world.labels) is world.on


@EACH
def test_pools_executors_and_heartbeats_are_read_in_each_naming(source: Source, world: World) -> None:
    found, tasks, parsing = source.known(world)
    assert {pool.open_least for pool in tasks.pools} <= {None, world.open, 3}
    assert tuple(replace(pool, open_least=None) for pool in tasks.pools) == (
        Pool("default_pool", open=world.open, running=1, queued=world.waiting, scheduled=1),
        Pool("small_one", open=3, running=1, queued=1, scheduled=1),
    )
    assert tasks.waiting_least == world.waiting + 1
    assert tasks.parallelism == world.parallelism
    assert tasks.handed_out == tasks.handed_out_least
    assert tasks.quiet == 0
    assert found.beats is not None
    assert found.beats > 400
    assert (parsing.files, parsing.queue) == (world.files, 1)
    assert 8 < parsing.oldest < 14
    assert {item.name for item in parsing.slowest} == {"slow_file", "loads", "pooled", "broken"} - (
        {"broken"} if world.files == 3 else set()
    )


@pytest.mark.parametrize("world", [THREE, DEFAULT, SENT], ids=lambda one: f"{one.on.name}-{one.file}")
def test_airflow_3_tells_queues_and_triggerers_in_each_naming(source: Source, world: World) -> None:
    found, tasks, _ = source.known(world)
    assert tasks.queued["heavy"] == tasks.queued_least["heavy"] == (7 if world is DEFAULT else 8)
    assert tasks.running["default"] > 0
    assert found.triggerer == Triggerer(running=1, free=1001, deferred=2)


@EACH
def test_units_are_seconds_whatever_the_line_and_the_naming_tell(source: Source, world: World) -> None:
    # In each world slow_file sleeps 1.5 s, and tasks take 1 to 3 s and what their start takes.
    found, tasks, parsing = source.known(world)
    assert parsing.slowest[0].name == "slow_file"
    assert 1.5 < parsing.slowest[0].seconds < 2.1
    assert tasks.duration == pytest.approx(1.9, abs=0.35)
    assert tasks.longest is not None
    # A quantile is a gauge here, and so one more than it was.
    assert 3 < tasks.longest < 7
    assert tasks.critical is not None
    assert 0.002 < tasks.critical < 0.01
    assert tasks.section is not None
    assert 0.007 < tasks.section < 0.03
    assert found.loop is not None
    assert 0.08 < found.loop < 0.4


@pytest.mark.parametrize(("both", "line"), [(DEFAULT, "3"), (MAPPED, "2")])
def test_a_task_that_a_mapping_and_a_tag_both_count_is_counted_once(source: Source, both: World, line: str) -> None:
    # Behind the mapping dag.<dag>.<task>.duration, by its labels, is the same series as the tagged task.duration.
    _, once, _ = source.known(both)
    twice = source.read(CHART, line, **both.labels).tasks
    assert twice is not None
    assert once.pace is not None
    assert twice.pace is not None
    assert twice.pace > 1.9 * once.pace, "so it is not read by the chart's names"
    assert once.pace == sum(one.now for one in once.paces)
    started = f'sum(increase(airflow_ti_start{{release="{both.file}"}}[10m]))'
    assert once.pace == pytest.approx(float(source.prometheus.query(started)[0]["value"][1]), rel=0.05)


def test_a_task_in_a_group_that_a_mapping_tells_twice_waits_once(source: Source) -> None:
    now = int(time.time() * 1000)
    kinds = ("group.one", "group__one", "deep.down.one", "deep__down__one", "alone")
    ages = range(60_000, -1, -15_000)
    source.show(
        *(
            f'airflow_ti_{state}{{release="groups",queue="default",dag_id="d",task_id="{task}"}} 3 {now - age}\n'
            for task in kinds
            for state in ("queued", "running")
            for age in ages
        )
    )
    found = [*source.answers(TAGGED, {"release": "groups"})[questions.QUEUES.name]]
    found = [one for one in found if one.labels.get("signal") != "ran"]
    assert {one.labels.get("signal") or one.labels["__name__"]: one.value for one in found} == {
        "airflow_ti_queued": 9,
        "airflow_ti_running": 9,
        "queued_least": 9,
    }


def test_which_dag_runs_how_many_tasks_is_not_told_by_opentelemetry(source: Source) -> None:
    _, tasks, _ = source.known(SENT)
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
    one, two = (source.read(OPENTELEMETRY, "3", job=job).tasks for job in (SENT.file, "two-schedulers"))
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
    _, usual, _ = source.known(SENT)
    assert (tasks.pools, tasks.waiting_least, tasks.queued) == (usual.pools, usual.waiting_least, usual.queued)


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
            # One that runs for long tells of its start again and again.
            long = [replace(one, process="long") for one in of_tasks if one.process == "task-1"]
            told.by_opentelemetry(source.prometheus.url, long, job, moved=told.stands)

    send("quiet", starts=True)
    send("mute", starts=False)
    # The newest of them was sent 330 s ago; a start counts for two minutes, and looks are 15 s apart.
    quiet = tasks("quiet")
    assert quiet.quiet == pytest.approx(330, abs=25)
    assert quiet.started == 0
    assert tasks(SENT.file).quiet == 0
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


def test_the_naming_is_asked_for_once_in_ten_minutes_and_then_as_many_questions_as_always(source: Source) -> None:
    def turn(client: Prometheus, known: str, **metrics: str) -> tuple[str, str, int]:
        entry = {"name": "*", "memory": {"min": "1Gi", "max": "2Gi"}, "concurrency": {"min": 1, "max": 4}}
        own = {"airflowMatchLabels": SENT.labels, **metrics}
        spec = api.Spec.model_validate({"airflow": {"release": "airflow"}, "workers": [entry], "metrics": own})
        before = client.calls
        _, _, problem, naming = asyncio.run(observe._asked(client, spec, "n", 0, known, None, airflow=True))  # noqa: SLF001
        return naming, problem, client.calls - before

    client = Prometheus("main", settings.Source(url=source.prometheus.url))
    # Two of them, about leaks and a day of triggers, are asked every ten minutes as well.
    assert turn(client, "") == ("OpenTelemetry", "", 18)
    assert turn(client, "OpenTelemetry") == ("OpenTelemetry", "", 15)
    assert turn(client, "") == ("OpenTelemetry", "", 16), (
        "nothing was known, or it was of no use: it is looked at again"
    )
    assert turn(client, "", naming="Tagged") == ("Tagged", "", 15), "what the policy states is not asked"


@pytest.mark.parametrize("on", NAMINGS.values(), ids=lambda one: one.name)
@pytest.mark.parametrize("signal", [*questions.AIRFLOW, questions.NAMED], ids=lambda one: one.name)
def test_every_question_is_promql_whatever_the_labels_are(source: Source, signal: Signal, on: Naming) -> None:
    for number, text in enumerate(("", *NASTY)):
        labels = {} if not text else {"note": text}
        metrics = api.Metrics(match_labels=labels, airflow_match_labels=labels, window_seconds=WINDOW + number)
        found = asked_for(source.prometheus.url, signal, replace(prometheus.scope(metrics, "no"), naming=on))
        assert not text or found == (), "nothing has such a label"


class NoObjects:
    """An API server without any."""

    async def list(self, *_: object) -> list[dict[str, object]]:
        """None."""
        return []


@pytest.mark.parametrize(("line", "problem"), [("2", "Airflow 2 tells by OpenTelemetry of one pool only"), ("3", "")])
def test_a_look_names_the_naming_and_says_where_a_line_of_airflow_tells_too_little_in_it(
    source: Source, line: str, problem: str
) -> None:
    entry = {"name": "*", "memory": {"min": "1Gi", "max": "2Gi"}, "concurrency": {"min": 1, "max": 4}}
    spec = api.Spec.model_validate(
        {
            "airflow": {"release": "airflow", "version": line},
            "workers": [entry],
            "metrics": {"airflowMatchLabels": SENT.labels},
        }
    )
    client = Prometheus("main", settings.Source(url=source.prometheus.url))
    look = observe.observe(NoObjects(), client, None, spec, "n", datetime.now(UTC))  # type: ignore[arg-type] # all it asks
    seen = asyncio.run(look)
    assert seen.naming == "OpenTelemetry"
    assert seen.airflow.problem.startswith(problem)
    assert bool(seen.airflow.problem) is bool(problem)
    assert (seen.airflow.tasks is None) is bool(problem)
