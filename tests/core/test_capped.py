"""A DAG that its own limit holds back: told only where nothing else can be what holds it."""

from dataclasses import replace
from typing import Any

import pytest

from airflow_tuner import api, questions, telemetry
from airflow_tuner.fleet import Deployment, Laws
from airflow_tuner.model import Finding, Pod, Severity
from airflow_tuner.signals import Series
from airflow_tuner.singles import Held
from airflow_tuner.telemetry import Pace, Pool
from core.scrapes import Scrapes
from core.worlds import observed, pod, scheduler, slots, slots_spec, tasks, turn, usage, worker

CAPPED = Held("etl", scheduled=24, least=16, most=16, ended=60)
POOL = Pool("default_pool", open=100, running=16, queued=0, scheduled=24, open_least=90)


def found(
    *held: Held,
    pools: tuple[Pool, ...] = (POOL,),
    workers: tuple[Pod, ...] | None = None,
    loop: float | None = 0.3,
    chief: Pod | None = None,
    **fields: Any,  # noqa: ANN401 - any field of the tasks
) -> list[Finding]:
    """What is said of these DAGs in an Airflow that has room everywhere, but for what is told."""
    known = {"held": held or (CAPPED,), "open_least": 12, "starving": 0, "open_slots": 12, "handed_out": 20, **fields}
    says = telemetry.Airflow(tasks(0, 16, **{"pools": pools, **known}), loop=loop)
    pods = (pod("a", slots=slots(16, 8)), pod("b", slots=slots(16, 8))) if workers is None else workers
    group = [worker(*pods)] if pods else []
    seen = observed(*group, scheduler(chief or pod("s", usage=usage(cpu=0.3))), airflow=says, broker="")
    return [one for one in turn(slots_spec(), seen).findings if one.reason == "DagConcurrencyCapped"]


def test_a_dag_that_stays_at_its_limit_while_all_else_has_room_is_named() -> None:
    (finding,) = found()
    assert (finding.severity, finding.target) == (Severity.INFO, "dag/etl")
    assert finding.message == (
        "At least 24 tasks of the DAG etl could have run at any time within five minutes, and waited about 120 s each: "
        "16 of them ran or were queued at once, and 60 ended. Pools, core.parallelism (12 left), workers and scheduler "
        "had room, so a limit of the DAG's own holds them back: most likely max_active_tasks (16 by default, for each "
        "run), or max_active_tis_per_dag of a task. More slots would not help. Not meant: raise it in the DAG, or "
        "config.core.max_active_tasks_per_dag of the Airflow chart for all."
    )
    (finding,) = found(replace(CAPPED, least=14))
    assert ": 14 to 16 of them ran" in finding.message


def test_each_of_several_is_named() -> None:
    assert [one.target for one in found(CAPPED, replace(CAPPED, dag="report"))] == ["dag/etl", "dag/report"]


@pytest.mark.parametrize(
    "held",
    [
        replace(CAPPED, least=11),
        replace(CAPPED, ended=0),
        replace(CAPPED, least=12, ended=5),
        replace(CAPPED, least=0, most=0),
        replace(CAPPED, scheduled=2, ended=600),
        replace(CAPPED, scheduled=5, ended=50),
    ],
    ids=["not steady", "nothing ends", "paused", "nothing runs", "on its way", "within the objective"],
)
def test_a_dag_that_may_wait_for_something_else_is_not_named(held: Held) -> None:
    assert found(held) == []


@pytest.mark.parametrize(
    "otherwise",
    [
        {"pools": (replace(POOL, open_least=0),)},
        {"pools": (replace(POOL, open_least=None),)},
        {"pools": (POOL, replace(POOL, name="small", open=0, open_least=0))},
        {"pools": (replace(POOL, scheduled=0),)},
        {"pools": ()},
        {"starving": 3},
        {"starving": None},
        {"open_least": 0},
        {"open_least": None},
        {"loop": 1.1},
        {"loop": None},
        {"critical": 2.0},
        {"chief": pod("s", usage=usage(cpu=0.9, throttled=0.5))},
        {"workers": (pod("a", slots=slots(16, 16)),)},
        {"workers": (pod("a", slots=slots(17, 16)),)},
        {"workers": (pod("a"),)},
        {"workers": (pod("a", running=None, slots=None),)},
        {"paces": (Pace("etl", 900, 50),), "pace": 1000},
    ],
    ids=str,
)
def test_it_is_silent_where_something_else_may_hold_the_tasks_or_is_not_known(otherwise: dict[str, Any]) -> None:
    assert found(**otherwise) == []


def test_a_full_pool_without_scheduled_tasks_and_one_without_end_are_in_nobodys_way() -> None:
    idle = Pool("sensors", open=0, running=2, queued=0, scheduled=0, open_least=0)
    endless = replace(POOL, open=None, open_least=None)
    assert len(found(pools=(POOL, idle))) == len(found(pools=(endless,))) == 1


def test_without_workers_nothing_may_wait_for_a_pod_or_a_slot_of_the_scheduler() -> None:
    assert len(found(workers=(), waiting_least=0)) == 1
    assert found(workers=(), waiting_least=3) == []
    assert found(workers=()) == [], "not known"


def test_a_healthy_airflow_and_airflow_2_are_silent() -> None:
    says = telemetry.Airflow(tasks(0, 16, pools=(replace(POOL, scheduled=0),), open_least=12, starving=0), loop=0.3)
    seen = observed(
        worker(pod(limit=4096, slots=slots(32, 16))), scheduler(pod("s", usage=usage(cpu=0.3))), airflow=says, broker=""
    )
    assert turn(slots_spec(), seen).findings == ()


def test_only_a_dag_of_which_all_is_told_is_read() -> None:
    beats = (
        Series({"__name__": "airflow_scheduler_heartbeat"}, 13),
        Series({"__name__": "airflow_pool_open_slots", "pool": "a.b"}, 9),
    )
    rates = [Series({"signal": name}, 36) for name in ("beats", "known", "starving", "executor_open_least")]
    parts = {"held": 24, "held_least": 15, "held_most": 16, "held_ended": 59.6}
    told = [Series({"signal": name, "dag_id": "etl"}, value) for name, value in parts.items()]
    told += [
        Series({"signal": name, "dag_id": "young"}, value) for name, value in parts.items() if name != "held_ended"
    ]
    told += [Series({"signal": "open_least", "pool": "a.b"}, 4)]
    answers = {
        questions.GAUGES.name: beats,
        questions.AIRFLOW_RATES.name: tuple(rates),
        questions.QUEUES.name: tuple(told),
    }
    found = telemetry.read(answers, "3").tasks
    assert found is not None
    assert found.held == (Held("etl", 24, 15, 16, 60),)
    assert (found.pools[0].open_least, found.open_least, found.starving) == (4, 36, 36)


# The fleet model has no limits of DAGs: whatever holds tasks back in it is something else.


@pytest.mark.parametrize("number", [4, 16, 64], ids="{}slots".format)
@pytest.mark.parametrize("pool", [4, 128], ids="pool{}".format)
@pytest.mark.parametrize("parallelism", [32, 200], ids="parallelism{}".format)
def test_in_a_fleet_without_such_limits_no_dag_is_ever_named(number: int, pool: int, parallelism: int) -> None:
    fleet = Deployment(3, laws=Laws.measured("3"), parallelism=parallelism, pools={"default_pool": pool})
    fleet.start("scheduler", "scheduler", {}, None)
    fleet.start("w", "worker", {str(api.EnvName.CONCURRENCY): str(number)}, None)
    scrapes, held = Scrapes(fleet), 0

    def flow() -> None:
        if fleet.now % 10 == 0:
            fleet.trigger("steady", 6, 8)
        if fleet.now % 300 == 0:
            fleet.trigger("burst", 120, 20)

    scrapes.advance(300, meanwhile=flow)
    for _ in range(12):
        scrapes.advance(60, meanwhile=flow)
        says = scrapes.read()
        assert says.tasks is not None
        held += len(says.tasks.held)
        living = pod("w", limit=None, slots=slots(*fleet.slots("w")), usage=usage(cpu=0.5))
        seen = observed(worker(living, limit=None), scheduler(pod("s", usage=usage(cpu=0.3))), airflow=says, broker="")
        assert "DagConcurrencyCapped" not in turn(slots_spec(), seen).found
    assert held or (pool, number) != (4, 4), "some tasks were held back all the time"
