"""What a turn adds to the memory of past hours, and what it leaves out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow_tuner import api, checkpoint
from airflow_tuner.history import History, hour_of, of_tasks
from airflow_tuner.learning import by_group, complete, filled, learned
from airflow_tuner.model import Observation, Sample
from core.worlds import MI, NOW, airflow, observed, pod, scheduler, slots, spec, tasks, turn, usage, worker

HOUR = hour_of(NOW)


def holding(*sizes: float | None, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    """Workers that hold so much."""
    pods = [pod(f"w{number}", usage=usage(anonymous=size)) for number, size in enumerate(sizes)]
    return observed(worker(*pods), **fields)


def peak(seen: Observation, prior: api.Status | None = None, hour: int = HOUR) -> int | None:
    history = learned(spec(), prior or api.Status(), seen).histories.get("worker/default", History())
    return history.at(hour)


def test_the_most_that_any_pod_held_within_the_hour_is_its_peak() -> None:
    assert peak(holding(300, 700.5, None)) == 701
    again = replace(holding(400), histories={"worker/default": History(HOUR, (701,))})
    assert peak(again) == 701


def test_what_is_not_known_is_not_learned() -> None:
    assert peak(holding(None)) is None
    assert peak(observed(worker())) is None


def test_a_sample_of_the_hour_before_is_not_one_of_this_hour() -> None:
    seen = holding(700)
    late = replace(seen, at=NOW + timedelta(hours=1))
    assert peak(late, hour=HOUR + 1) is None


def test_what_has_leaked_is_no_demand() -> None:
    leaking = replace(usage(anonymous=900), growth_days=Sample(10 * MI / 3600, NOW))
    seen = observed(worker(pod(usage=leaking, started=NOW - timedelta(hours=50))))
    assert peak(seen) == 400
    slow = replace(usage(anonymous=900), growth_days=Sample(MI / 7200, NOW))
    assert peak(observed(worker(pod(usage=slow, started=NOW - timedelta(hours=50))))) == 900


def test_a_load_that_rises_through_the_day_is_no_leak() -> None:
    rising = replace(usage(anonymous=1400), growth_hours=Sample(150 * MI / 3600, NOW))
    assert peak(observed(worker(pod(usage=rising, started=NOW - timedelta(days=10))))) == 1400


def test_what_cannot_have_leaked_since_the_start_is_not_known() -> None:
    leaking = replace(usage(anonymous=400), growth_days=Sample(10 * MI / 3600, NOW))
    assert peak(observed(worker(pod(usage=leaking, started=NOW - timedelta(days=10))))) is None


def test_while_a_slow_database_piles_tasks_up_nothing_is_learned() -> None:
    assert peak(holding(900, airflow=airflow(tasks(critical=3.0)))) is None
    assert peak(holding(900, airflow=airflow(tasks(critical=0.01)))) == 900
    waits = scheduler(pod("s", usage=usage(cpu=0.01)))
    (workers,) = holding(900).workloads
    assert peak(observed(workers, waits, airflow=airflow(tasks(section=2.3)))) is None


def test_a_kill_says_that_more_than_its_limit_was_wanted_also_later() -> None:
    killed = turn(spec(), observed(worker(pod(died=NOW, usage=usage(anonymous=500)))))
    later = replace(killed.seen, at=NOW + timedelta(minutes=90))
    for seen in (killed.seen, later):
        assert peak(seen, killed.status) == 1229


def asked(seen: Observation, objective: int = 30) -> int | None:
    history = learned(spec(objectives={"queueLagSeconds": objective}), api.Status(), seen).histories.get(
        of_tasks("worker/default"), History()
    )
    return history.at(HOUR)


def working(*busy: int, waiting: int = 0, running: int | None = None, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    """Workers with so many busy slots each; `running`: as Airflow has it."""
    pods = [pod(f"w{number}", slots=slots(16, count)) for number, count in enumerate(busy)]
    told = tasks(waiting, sum(busy) if running is None else running, duration=14.0)
    return observed(worker(*pods), **{"airflow": airflow(told), **fields})


def test_the_tasks_that_run_and_those_that_should_run_at_once_are_the_demand_of_the_hour() -> None:
    assert asked(working(3, 4)) == 7
    # Half of what waits 15 s on a slot does so within 30 s.
    assert asked(working(3, 4, waiting=10)) == 12
    assert asked(working(3, 4, waiting=10), objective=10) == 17
    more = working(3, 4)
    assert asked(replace(more, histories={of_tasks("worker/default"): History(HOUR, (9,))})) == 9


def test_tasks_that_are_stranded_with_a_worker_are_no_demand() -> None:
    assert asked(working(3, 4, running=23)) == 7
    (group,) = working(3, 4, running=23).workloads
    silent = replace(group, pods=tuple(replace(one, slots=None) for one in group.pods))
    assert asked(replace(working(3, 4, running=23), workloads=(silent,))) == 23


def test_a_demand_that_is_not_known_usual_or_the_groups_own_is_not_learned() -> None:
    assert asked(working(3, airflow=airflow(None))) is None
    assert asked(working()) is None
    assert asked(working(3, airflow=airflow(tasks(0, 3, critical=3.0)))) is None
    other = worker(pod("o", slots=slots(4)), target="worker/other", name="airflow-worker-other")
    seen = working(3)
    assert asked(replace(seen, workloads=(*seen.workloads, other))) is None
    apart = replace(other, pods=(pod("o", slots=slots(4, queues=("heavy",))),), queues=("heavy",))
    assert asked(replace(seen, workloads=(*seen.workloads, apart))) == 3


def test_the_tasks_of_past_hours_are_told_by_the_queues_of_each_group() -> None:
    told: dict[str, list[int | None]] = {"": [9, 9, None], "default": [5, 6, 7], "heavy": [3, None, 2]}
    alone = working(3)
    assert by_group(alone, told) == {"worker/default tasks": [9, 9, None]}
    both = pod("o", slots=slots(4, queues=("heavy",)))
    heavy = worker(both, target="worker/heavy", name="airflow-worker-heavy", queues=("heavy",))
    two = replace(alone, workloads=(*alone.workloads, heavy))
    assert by_group(two, told) == {"worker/default tasks": [5, 6, 7], "worker/heavy tasks": [3, None, 2]}
    assert by_group(two, {"": [9]}) == {}
    shared = replace(heavy, pods=(pod("o", slots=slots(4, queues=("heavy", "default"))),))
    assert by_group(replace(two, workloads=(*alone.workloads, shared)), told) == {}


def test_a_checkpoint_holds_the_hours_that_are_over() -> None:
    histories = {"worker/default": History(HOUR - 2, (300, 400, 500)), "triggerer": History(HOUR, (100,))}
    over = complete(histories, NOW)
    assert over == {"worker/default": History(HOUR - 2, (300, 400))}
    kept = checkpoint.remembered(api.Status(), "uid", over)
    assert checkpoint.histories(kept, "uid") == over
    assert checkpoint.histories(kept, "another policy of that name") == {}
    assert checkpoint.histories(None, "uid") == {}


def test_the_metrics_source_fills_the_past_of_the_workloads_that_are_targets() -> None:
    names = {"airflow-worker": "worker/default"}
    told: dict[str, list[int | None]] = {"airflow-worker": [300, None], "somebody-elses": [900, 900]}
    assert filled({}, names, HOUR - 2, told) == {"worker/default": History(HOUR - 2, (300, None))}
