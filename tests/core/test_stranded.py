"""Tasks that died with their worker: the stall is named, ends by itself, and is never answered with slots."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_tuner import api
from airflow_tuner.fleet import Deployment, Laws
from airflow_tuner.model import Death, Finding, Observation, Pod, Severity, Values
from core.scrapes import Scrapes
from core.worlds import MI, NOW, Turn, airflow, observed, pod, scheduler, slots, slots_spec, tasks, turn, usage, worker

SECOND = timedelta(seconds=1)
AUTOSCALE = str(api.EnvName.AUTOSCALE)
CONCURRENCY = str(api.EnvName.CONCURRENCY)
CALM = usage(cpu=0.1, throttled=0.0, node_cpu=0.3)
OLD = NOW - timedelta(days=1)


class World:
    """A fleet of one group of workers and an operator beside it, with a broker or without."""

    def __init__(self, number: int = 16, workers: int = 1, *, line: str = "3", broker: bool = True) -> None:
        self.fleet = Deployment(7, line=line, laws=Laws.measured(line), group_kills=True)
        self.fleet.start("scheduler", "scheduler", {}, None)
        self.names = [f"airflow-worker-{index}" for index in range(workers)]
        self.number, self.line, self.broker = number, line, broker
        self.status, self.limit = api.Status(), 3000
        self.deaths: dict[str, Death] = {}
        self.started: dict[str, float] = {}
        for name in self.names:
            self.start(name)
        self.scrapes = Scrapes(self.fleet)
        self.scrapes.advance(180)

    @property
    def now(self) -> datetime:
        """The fleet's time."""
        return NOW + timedelta(seconds=self.fleet.now)

    def start(self, name: str) -> None:
        """A container begins."""
        self.fleet.start(name, "worker", {AUTOSCALE: f"{self.number},{self.number}"}, 3000 * MI)
        self.started[name] = self.fleet.now

    def kill(self, name: str) -> None:
        """The kernel kills the container; the kubelet starts it again."""
        self.fleet.resize(name, 100 * MI)
        assert not self.fleet.alive(name)
        self.deaths[name] = Death(1, self.now)
        self.scrapes.advance(5)
        self.start(name)

    def pods(self) -> list[Pod]:
        """The workers, as the API server, cAdvisor and the broker show them."""
        found = []
        for name in self.names:
            processes, busy = self.fleet.slots(name)
            answers = self.broker and self.fleet.ready(name)
            found.append(
                pod(
                    name,
                    limit=self.limit,
                    started=NOW + timedelta(seconds=self.started[name]),
                    death=self.deaths.get(name),
                    deaths=int(name in self.deaths),
                    usage=CALM,
                    slots=slots(processes, busy) if answers else None,
                    environment={CONCURRENCY: str(self.number)},
                )
            )
        return found

    def look(self) -> Turn:
        """One turn; what it says is remembered."""
        workers = worker(*self.pods(), limit=3000, stated=Values(concurrency=self.number), replicas=len(self.names))
        schedulers = scheduler(pod("scheduler", started=OLD, usage=CALM))
        seen = observed(workers, schedulers, at=self.now, airflow=self.scrapes.read(), line=self.line, broker="")
        last = turn(slots_spec(high=64, memory_max="64Gi"), seen, self.status)
        self.status, self.limit = last.status, last.limit
        return last


def found(last: Turn) -> Finding | None:
    return next((item for item in last.findings if item.reason == "StrandedTasks"), None)


def lag(last: Turn) -> str:
    """What QueueLagHigh says of the workers."""
    told = [item.message for item in last.findings if item.reason == "QueueLagHigh" and item.target == "worker/default"]
    return told[0] if told else ""


def cause(last: Turn) -> str:
    """The word in it."""
    return lag(last).partition("objective is 30 s. ")[2].partition(":")[0]


@pytest.mark.parametrize("line", ["2", "3"])
@pytest.mark.parametrize("broker", [True, False], ids=["broker", "no broker"])
def test_the_stall_after_a_workers_death_is_named_and_no_slots_are_given(line: str, *, broker: bool) -> None:
    world = World(line=line, broker=broker)
    world.fleet.trigger("load", 200, 20)
    world.scrapes.advance(60)
    assert found(world.look()) is None
    died = world.now
    world.kill("airflow-worker-0")
    seconds, seen = 0, []
    reasons: set[str] = set()
    while seconds < 280:
        world.scrapes.advance(15)
        seconds += 15
        last = world.look()
        seen.append(found(last) is not None)
        if seen[-1]:
            assert cause(last) == "StrandedTasks"
        reasons |= {*last.reasons}
    assert reasons == {"OutOfMemory"}, "the limit is the answer to the kill; slots would be none"
    # A worker that has just begun is left two minutes.
    assert seen == [False] * seen.index(True) + [True] * (len(seen) - seen.index(True))
    assert 120 <= 15 * (seen.index(True) + 1) <= 165
    finding = found(world.look())
    assert finding is not None
    assert (finding.severity, finding.target, finding.since) == (Severity.CRITICAL, "worker/default", died)
    assert finding.message.startswith("32 tasks are handed out to Celery, for 120 s at least, and")
    assert f"airflow-worker-0 was killed for memory at {died:%H:%M:%S}, and its messages with it." in finding.message
    assert f"the last by about {died + timedelta(minutes=10):%H:%M}" in finding.message
    assert len(finding.message) < 1024


def test_with_a_broker_the_finding_lasts_while_messages_come_back_one_by_one_and_then_ends() -> None:
    world = World()
    world.fleet.trigger("load", 100, 20)
    world.scrapes.advance(60)
    world.kill("airflow-worker-0")
    world.scrapes.advance(300)
    assert found(world.look()) is not None
    world.scrapes.advance(50)
    assert 0 < world.fleet.stranded < 32
    assert found(world.look()) is not None
    world.scrapes.advance(400)
    assert world.fleet.stranded == 0
    assert found(world.look()) is None


def test_messages_that_are_given_back_end_it_at_once() -> None:
    world = World()
    world.fleet.trigger("load", 200, 20)
    world.scrapes.advance(60)
    world.kill("airflow-worker-0")
    world.scrapes.advance(180)
    assert found(world.look()) is not None
    world.fleet.redeliver()
    world.scrapes.advance(30)
    assert found(world.look()) is None


@pytest.mark.parametrize("line", ["2", "3"])
@pytest.mark.parametrize("broker", [True, False], ids=["broker", "no broker"])
def test_ordinary_load_strands_nothing(line: str, *, broker: bool) -> None:
    world = World(8, workers=2, line=line, broker=broker)

    def triggered() -> None:
        if world.fleet.now % 60 == 0:
            world.fleet.trigger("short", 60, 2)
        if world.fleet.now % 240 == 0:
            world.fleet.trigger("long", 12, 300)

    for _ in range(120):
        world.scrapes.advance(10, meanwhile=triggered)
        assert {*world.look().found} <= {"QueueLagHigh"}


def test_a_slow_database_is_told_and_its_end_too() -> None:
    world = World()
    world.fleet.slow_database(2.0)
    world.scrapes.advance(300)
    assert "DatabaseSlow" in world.look().found
    world.fleet.slow_database(None)
    world.scrapes.advance(330)
    assert world.look().found == []


def test_the_end_of_a_queue_seen_between_two_scrapes_is_no_stall() -> None:
    world = World()
    world.fleet.trigger("load", 300, 10)
    for _ in range(400):
        world.scrapes.advance(1)
        assert found(world.look()) is None


def test_slots_wait_until_a_death_has_shown_whether_tasks_are_stranded() -> None:
    busy = with_pod(stalled(lately=60, quiet=0.0, handed_out_least=0, duration=60.0), slots=slots(16))
    policy = slots_spec(high=64, memory_max="64Gi")
    last = turn(policy, busy)
    assert last.reasons == ["OutOfMemory"]
    for seconds, reasons in ((30, []), (119, []), (120, ["SlotsExhausted"])):
        later = with_pod(replace(busy, at=NOW + seconds * SECOND), running=last.target.desired.memory)
        assert turn(policy, later, last.status).reasons == reasons
    assert "by 12:02:00 it shows whether tasks are stranded" in lag(turn(policy, replace(later, at=NOW), last.status))


def test_where_living_workers_are_busy_a_death_is_no_stall() -> None:
    world = World(8, workers=4)
    world.fleet.trigger("load", 400, 20)
    world.scrapes.advance(60)
    world.kill("airflow-worker-1")
    for _ in range(20):
        world.scrapes.advance(15)
        last = world.look()
        busy = sum(world.fleet.slots(name)[1] for name in world.names)
        if found(last) is not None:
            assert busy < 16


# What else looks like it.


def stalled(*, lately: float = 200, **changes: Any) -> Observation:  # noqa: ANN401 - any field of the tasks
    """A worker that died some time ago idles, and tasks wait."""
    died = NOW - lately * SECOND
    one = pod(death=Death(1, died), deaths=1, started=died + 20 * SECOND, usage=CALM, slots=slots(16, 0))
    return world_of(one, **changes)


def world_of(*pods: Pod, **changes: Any) -> Observation:  # noqa: ANN401 - any field of the tasks
    known = {
        "duration": None,
        "open_slots": 0,
        "handed_out": 32,
        "handed_out_least": 32,
        "waiting_least": 31,
        "queued_least": {"default": 31},
        "quiet": 1020.0,
    }
    return observed(
        worker(*pods, stated=Values(concurrency=16)), airflow=airflow(tasks(31, 1, **{**known, **changes})), broker=""
    )


def with_pod(seen: Observation, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the pod
    (workload,) = seen.workloads
    return replace(seen, workloads=(replace(workload, pods=tuple(replace(one, **fields) for one in workload.pods)),))


def look(seen: Observation, **fields: Any) -> Turn:  # noqa: ANN401 - any field of the spec
    return turn(slots_spec(**fields), seen)


def test_the_world_of_the_tests_below_is_stalled() -> None:
    last = look(stalled())
    assert found(last) is not None
    assert (cause(last), last.reasons) == ("StrandedTasks", ["OutOfMemory"])


@pytest.mark.parametrize(
    "changes",
    [
        {"handed_out_least": None},
        {"handed_out_least": 0},
        {"queued_least": {"default": 0}, "open_slots": 3},
        {"queued_least": {}, "waiting_least": None, "open_slots": None},
    ],
)
def test_what_is_not_known_or_passed_within_two_minutes_is_no_stall(changes: dict[str, Any]) -> None:
    assert found(look(stalled(**changes))) is None


def test_tasks_of_a_queue_that_nobody_serves_are_not_stranded() -> None:
    assert found(look(stalled(queued_least={"elsewhere": 31}, open_slots=3))) is None
    told = with_pod(stalled(queued_least={"elsewhere": 31}), slots=slots(16, 0, queues=("elsewhere",)))
    assert found(look(told)) is not None


def test_on_airflow_2_a_death_must_tell_it_from_a_queue_that_nobody_serves() -> None:
    two: dict[str, Any] = {"queued_least": {}, "queued": {}}
    assert found(look(stalled(**two))) is not None
    whole = world_of(pod(started=OLD, usage=CALM, slots=slots(16, 0)), **two)
    last = look(whole)
    assert (found(last), cause(last), last.reasons) == (None, "WorkersIdle", [])


def test_without_a_known_death_it_is_told_on_airflow_3_and_nobody_is_named() -> None:
    finding = found(look(world_of(pod(started=OLD, usage=CALM, slots=slots(16, 0)))))
    assert finding is not None
    assert "held for a worker that is gone, or the workers do not take what waits" in finding.message


def test_a_container_that_died_of_something_else_is_named_by_its_new_beginning() -> None:
    finding = found(look(with_pod(stalled(), death=None)))
    assert finding is not None
    assert "The container of airflow-worker-0 died and began again at 11:57:00" in finding.message


def test_a_stall_that_outlasts_airflows_timeouts_is_told_as_such() -> None:
    finding = found(look(stalled(lately=900)))
    assert finding is not None
    assert "By 11:55 Airflow should have had the last back" in finding.message


def test_workers_that_have_just_begun_or_got_more_slots_are_left_time() -> None:
    assert found(look(with_pod(stalled(), started=NOW - 119 * SECOND))) is None
    policy = slots_spec(high=64, memory_max="64Gi")
    raised = turn(policy, observed(
        worker(pod(started=OLD, usage=CALM, slots=slots(2), limit=4096, environment={CONCURRENCY: "2"}), limit=4096),
        airflow=airflow(tasks(30, 2, duration=60.0)),
        broker="",
    ))  # fmt: skip
    assert raised.reasons == ["SlotsExhausted"]
    idle = with_pod(replace(raised.seen, airflow=stalled().airflow), slots=slots(4, 0))
    for seconds, named in ((60, False), (119, False), (120, True)):
        later = replace(idle, at=NOW + seconds * SECOND)
        assert (found(turn(policy, later, raised.status)) is not None) is named


@pytest.mark.parametrize(("busy", "handed_out", "named"), [(7, 32, True), (8, 32, False), (7, 7, False), (7, 8, True)])
def test_it_takes_idle_slots_and_more_handed_out_than_the_workers_hold(
    busy: int, handed_out: int, *, named: bool
) -> None:
    seen = with_pod(stalled(handed_out_least=handed_out), slots=slots(16, busy))
    assert (found(look(seen)) is not None) is named


def test_messages_that_a_full_worker_of_another_group_holds_are_not_stranded() -> None:
    one = replace(worker(pod(started=OLD, usage=CALM, slots=slots(16, 0))), target="worker/one", name="one")
    full = pod("b", started=OLD, usage=CALM, slots=slots(16, 16, queues=("other",)))
    other = replace(worker(full), target="worker/other", name="other")
    both = replace(stalled(), workloads=(one, other))
    workers = [{"name": "*", "memory": {"min": "512Mi", "max": "4Gi"}, "concurrency": {"min": 1, "max": 16}}]
    assert found(look(both, workers=workers)) is None
    more = replace(
        both, airflow=airflow(replace(tasks(31, 1), handed_out_least=33, queued_least={"default": 1}, quiet=300.0))
    )
    finding = found(look(more, workers=workers))
    assert finding is not None
    assert finding.target == "worker/one"


def silent(seen: Observation, quiet: float | None) -> Observation:
    """Without a broker."""
    assert seen.airflow.tasks is not None
    return replace(with_pod(seen, slots=None), airflow=airflow(replace(seen.airflow.tasks, quiet=quiet)), broker=None)


@pytest.mark.parametrize(
    ("quiet", "named"), [(None, False), (0.0, False), (150.0, False), (184.0, False), (185.0, True), (1020.0, True)]
)
def test_without_a_broker_it_takes_that_nothing_started_since_the_death(quiet: float | None, *, named: bool) -> None:
    assert (found(look(silent(stalled(), quiet))) is not None) is named


def test_without_a_broker_long_tasks_that_fill_the_workers_are_not_stranded() -> None:
    assert found(look(silent(world_of(pod(started=OLD, usage=CALM)), 1020.0))) is None
    dead = pod("dead", death=Death(3, NOW - 200 * SECOND), deaths=3, running=None)
    full = pod("full", started=OLD, usage=CALM)
    assert found(look(silent(world_of(dead, full), 1020.0))) is None, "the one that died has not come back"


def test_without_a_broker_workers_that_lack_cpu_are_slow_and_not_stalled() -> None:
    short = with_pod(silent(stalled(), 1020.0), usage=usage(cpu=0.1, throttled=0.5))
    assert found(look(short)) is None


def test_where_all_that_is_handed_out_died_while_it_ran_parallelism_is_not_blamed() -> None:
    full = tasks(0, 16).pools[0]
    dead: dict[str, Any] = {"pools": (replace(full, scheduled=40),), "queued_least": {"default": 0}, "waiting_least": 0}
    last = look(stalled(**dead))
    assert last.found[:2] == ["OutOfMemory", "StrandedTasks"]
