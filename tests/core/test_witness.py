"""Which tasks ran before a kill: told where somebody saw it, never guessed."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow_tuner import api, questions, telemetry, witness
from airflow_tuner.diagnose import diagnose
from airflow_tuner.model import Finding, Observation, Pod
from airflow_tuner.signals import Series
from core.worlds import NOW, airflow, observed, pod, slots, slots_spec, spec, tasks, usage, worker

SECOND = timedelta(seconds=1)
COUNTS = ((0, 9), (30, 2), (60, 3))
"""Seconds, and how many tasks run then."""
TWO = {"etl.load": 2, "report.build": 1}


def look(*pods: Pod, at: datetime = NOW, found: telemetry.Tasks | None = None) -> Observation:
    return observed(worker(*pods), at=at, airflow=airflow(found))


def busy(name: str = "w", running: dict[str, int] | None = None, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    told = TWO if running is None else running
    return pod(name, slots=slots(4, sum(told.values()), tasks=told), **fields)


def seen(*looks: Observation) -> Observation:
    """The last of these looks, with what the ones before it saw."""
    memory = witness.NOTHING
    for one in looks:
        memory = witness.noted(memory, one)
    return replace(looks[-1], ran=memory.ran)


def finding(last: Observation) -> Finding:
    (found,) = [
        one for one in diagnose(spec(), last, api.Status()) if one.reason in {"OutOfMemory", "NodeMemoryPressure"}
    ]
    return found


def kills(number: int, peak: int = 1024, at: datetime = NOW) -> dict[str, Any]:
    return {"usage": usage(kills=number, peak=peak, at=at)}


def test_what_a_worker_ran_at_the_look_before_it_died_is_told() -> None:
    later = NOW + 20 * SECOND
    died = pod("w", died=later - 2 * SECOND)
    told = finding(seen(look(busy()), look(died, at=later))).message
    assert (
        "In w ran within two minutes before, as far as seen: etl.load (2), report.build; one of them took it, or all "
        "together did. The limit in force" in told
    )


def test_one_task_alone_is_named_as_seen_and_not_as_one_of_several() -> None:
    later = NOW + 20 * SECOND
    told = finding(seen(look(busy(running={"etl.load": 1})), look(pod("w", died=later), at=later))).message
    assert "as far as seen: etl.load. The limit" in told
    assert "one of them" not in told


def test_a_process_that_was_killed_is_told_with_what_ran_then_and_before() -> None:
    later = NOW + 30 * SECOND
    last = look(busy(running={"etl.other": 1}, **kills(1, at=later)), at=later)
    told = finding(seen(look(busy(**kills(0))), last)).message
    assert "as far as seen: etl.other, etl.load (2), report.build; one of them" in told


def test_kills_from_before_the_first_look_are_nobodys() -> None:
    assert seen(look(busy(**kills(3)))).ran == {}
    assert "ran within" not in finding(seen(look(busy(**kills(3))), look(busy(**kills(3)), at=NOW + SECOND))).message
    old = pod("w", died=NOW - 121 * SECOND)
    assert seen(look(busy()), look(old)).ran == {}


def test_what_ran_long_before_is_not_told() -> None:
    later = NOW + 121 * SECOND
    assert seen(look(busy()), look(pod("w", died=later), at=later)).ran == {}


def test_it_is_kept_for_the_hour_of_the_finding_and_what_runs_later_does_not_count() -> None:
    died = NOW + 20 * SECOND
    again = replace(busy(running={"new.task": 1}), deaths=1, death=pod(died=died).death)
    looks = [look(busy()), look(pod("w", died=died), at=died)]
    looks += [look(again, at=died + timedelta(minutes=minutes)) for minutes in (1, 30, 60)]
    assert dict(seen(*looks).ran[again.uid].tasks) == TWO
    assert "new.task" not in finding(seen(*looks)).message
    assert seen(*looks, look(again, at=died + timedelta(minutes=61))).ran == {}


def test_a_gap_in_the_metrics_is_no_kill_and_hides_none() -> None:
    looks = [look(busy(**kills(2))), look(busy(), at=NOW + 30 * SECOND)]
    same = look(busy(**kills(2)), at=NOW + 60 * SECOND)
    assert seen(*looks, same).ran == {}
    assert seen(*looks, look(busy(**kills(3)), at=NOW + 60 * SECOND)).ran != {}
    other = replace(busy(**kills(3)), container_id="another")
    assert seen(*looks, look(other, at=NOW + 60 * SECOND)).ran == {}, "a count of another container"


def test_where_no_worker_says_it_airflow_tells_what_ran_in_the_queue() -> None:
    found = tasks(ran={"default": {"etl.load": 3}, "heavy": {"big.model": 1}})
    told = finding(seen(look(pod("w", died=NOW - SECOND), found=found))).message
    assert (
        "In its queues, in this or another worker, ran within two minutes before, as far as seen: etl.load (3)" in told
    )
    assert "big.model" not in told
    assert seen(look(pod("w", died=NOW - SECOND), found=tasks())).ran == {}
    assert "ran within" not in finding(seen(look(pod("w", died=NOW - SECOND)))).message


def test_airflow_2_names_the_task_whose_process_was_killed() -> None:
    found = tasks(killed=("etl_load",))
    last = look(pod("w", **kills(1, at=NOW + SECOND)), at=NOW + SECOND, found=found)
    told = finding(seen(look(pod("w", **kills(0))), last)).message
    assert "Airflow counts as ended by SIGKILL meanwhile: etl_load. The limit" in told


def test_the_nodes_shortage_is_no_tasks_doing() -> None:
    later = NOW + SECOND
    found = finding(seen(look(busy(**kills(0, 500))), look(busy(**kills(1, 500, later)), at=later)))
    assert found.reason == "NodeMemoryPressure"
    assert "etl.load" not in found.message


def test_many_tasks_with_long_names_neither_fill_memory_nor_the_message() -> None:
    many = {f"{'d' * 90}.{number:09}": 1 for number in range(20)}
    memory = witness.NOTHING
    for turn in range(10):
        running = {f"{name}{turn}": 1 for name in many}
        memory = witness.noted(memory, look(busy(running=running), at=NOW + 10 * turn * SECOND))
    (kept,) = memory.looks.values()
    assert len(kept) == witness.MOST
    assert all(name.endswith("9") for name in kept), "the newest"
    died = NOW + 95 * SECOND
    memory = witness.noted(memory, look(pod("w", died=died), at=died))
    last = replace(look(pod("w", died=died), at=died), ran=memory.ran)
    assert "and 16 more" in finding(last).message
    assert len(finding(last).message) < 1024


def test_pods_that_are_gone_are_forgotten() -> None:
    memory = witness.noted(witness.NOTHING, look(busy("gone"), busy("stays")))
    memory = witness.noted(memory, look(busy("stays"), at=NOW + SECOND))
    assert {*memory.looks} == {*memory.marks} == {busy("stays").uid}


def test_a_healthy_airflow_is_silent_however_much_runs() -> None:
    looks = [look(busy(**kills(0, 500)), at=NOW + 30 * turn * SECOND) for turn in range(5)]
    assert seen(*looks).ran == {}
    assert diagnose(slots_spec(), seen(*looks), api.Status()) == ()


def test_the_series_of_tasks_are_read_by_queue() -> None:
    beats = Series({"__name__": "airflow_scheduler_heartbeat"}, 13)
    rates = [Series({"signal": name}, 36) for name in ("beats", "known")]
    told = (
        Series({"signal": "ran", "queue": "default", "dag_id": "etl", "task_id": "load"}, 2),
        Series({"signal": "ran", "queue": "heavy", "dag_id": "big", "task_id": "model"}, 1),
        Series({"signal": "killed", "task": "etl_load"}, 1),
    )
    answers = {
        questions.GAUGES.name: (beats,),
        questions.AIRFLOW_RATES.name: tuple(rates),
        questions.QUEUES.name: told,
    }
    found = telemetry.read(answers, "3").tasks
    assert found is not None
    assert found.ran == {"default": {"etl.load": 2}, "heavy": {"big.model": 1}}
    assert (found.killed, found.queued) == (("etl_load",), {})


def test_what_ran_before_an_earlier_kill_is_not_told_of_the_last_one() -> None:
    first = NOW + 20 * SECOND
    looks = [look(busy()), look(pod("w", died=first), at=first)]
    later = first + timedelta(minutes=10)
    again = pod("w", died=later, deaths=2)
    assert seen(*looks, look(again, at=later)).ran == {}


def test_how_many_ran_is_how_many_were_last_seen() -> None:
    looks = [
        look(busy(running={"etl.load": number}), at=NOW + at * SECOND) for at, number in ((0, 9), (30, 2), (60, 3))
    ]
    died = NOW + 80 * SECOND
    assert seen(*looks, look(pod("w", died=died), at=died)).ran[pod("w").uid].tasks == {"etl.load": 3}


def test_a_node_whose_clock_is_ahead_hides_no_death() -> None:
    last = look(pod("w", died=NOW + 25 * SECOND), at=NOW + 20 * SECOND)
    assert seen(look(busy()), last).ran[pod("w").uid].tasks == TWO
