"""A past with other values in force: what is shown to the decision, and what is told of it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api
from airflow_tuner.counterfactual import Counterfactual, Kill, remembered
from airflow_tuner.history import History, hour_of, of_cpu
from airflow_tuner.model import Cpu, Observation, Pod, Values, Workload
from airflow_tuner.outcome import outcome
from airflow_tuner.workgroup import in_force
from core.worlds import MI, NOW, airflow, memory, observed, pod, slots_spec, spec, tasks, usage, worker

NAME = "airflow-worker-0"


class Told:
    """A past of one worker that was set to 1024 MiB, from minute to minute."""

    def __init__(
        self,
        policy: api.Spec,
        *,
        live: bool = False,
        slots: int | None = None,
        template: int | None = 1024,
        cpu: Cpu | None = None,
    ) -> None:
        self.policy, self.prior, self.past = policy, api.Status(), Counterfactual(live=live)
        self.minute, self.template, self.stated = 0, template, Values(concurrency=slots, cpu=cpu or Cpu())
        self.kills: list[Kill] = []

    def look(self, *pods: Pod, held: float | None = None, **more: Any) -> Observation:  # noqa: ANN401 - any field
        """A minute passes, and what is decided comes into force. `held`: MiB."""
        self.minute += 1
        workload = worker(*(pods or (pod(),)), limit=self.template, stated=self.stated)
        seen = replace(observed(workload, **more), at=NOW + timedelta(minutes=self.minute))
        shown, kills = self.past.shown(seen, {} if held is None else {NAME: held * MI})
        self.kills += kills
        came = outcome(self.policy, shown, self.prior, identity="policy-uid")
        self.prior = came.status
        self.past.carry_out(came)
        return shown


def died(number: int, minute: int, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    return pod(died=NOW + timedelta(minutes=minute), deaths=number, **fields)


def only(seen: Observation) -> Pod:
    (workload,) = seen.workloads
    return workload.pods[0]


def test_a_kill_is_shown_and_its_answer_is_in_force_at_the_next_look() -> None:
    told = Told(spec())
    told.look()
    shown = only(told.look(died(1, 2)))
    assert (shown.death and shown.death.number, shown.memory.limit) == (1, 1024 * MI)
    shown = only(told.look(died(1, 2)))
    assert (shown.memory.limit, shown.running and shown.running.limit, shown.resized) == (1536 * MI, 1536 * MI, True)
    (kill,) = told.kills
    assert (kill.limit, kill.then, kill.happened, kill.roomier) == (1024 * MI, 1024 * MI, True, False)


def test_a_kill_with_far_more_room_by_then_is_told_and_not_shown() -> None:
    told = Told(spec())
    told.look()
    told.look(died(1, 2))
    for _ in range(30):
        told.look(died(1, 2))
    shown = only(told.look(died(2, 33)))
    assert (shown.death, shown.deaths) == (None, 1)
    assert only(told.look(died(2, 33))).memory.limit == 1536 * MI, "nothing was answered"
    assert [(kill.then, kill.roomier) for kill in told.kills] == [(1024 * MI, False), (1536 * MI, True)]
    shown = only(told.look(died(3, 36, limit=2048)))
    assert shown.death is not None, "under another limit, set by its user in place"
    assert shown.memory.limit == 2048 * MI


def test_a_kill_that_is_not_shown_is_remembered_as_wanted() -> None:
    at = NOW + timedelta(minutes=3)
    kill = Kill(at, "worker/default", NAME, 1, 1000 * MI, 2000 * MI)
    before = {"worker/default": History(hour_of(at), (500,))}
    assert remembered(before, [kill])["worker/default"].at(hour_of(at)) == 1200
    assert remembered(before, [replace(kill, then=1100 * MI)]) == before, "that one is shown"
    assert remembered({}, [kill]) == {}


def test_where_more_was_held_than_the_limit_would_have_been_a_kill_is_shown_once() -> None:
    quiet = pod(usage=usage(anonymous=300, anonymous_day=300, working_set=300))
    week: dict[str, Any] = {"histories": {"worker/default": History(hour_of(NOW) - 200, (300,) * 200)}}
    told = Told(spec(changes={"releases": True}), slots=2)
    told.look(quiet, **week)
    lowered = only(told.look(quiet, held=300, **week)).memory.limit or 0
    assert lowered < 700 * MI
    shown = only(told.look(quiet, held=700, **week))
    assert (shown.deaths, shown.death and shown.death.number) == (1, 1)
    (kill,) = told.kills
    assert (kill.held, kill.then, kill.happened) == (700 * MI, lowered, False)
    after = only(told.look(quiet, held=700, **week))
    assert (after.memory.limit or 0) > 700 * MI, "it was answered"
    assert len(told.kills) == 1


def test_a_pod_that_stays_above_the_largest_limit_is_killed_once_for_each_time_it_gets_there() -> None:
    free: dict[str, Any] = {"request": 512, "limit": None, "usage": usage(working_set=600)}
    told = Told(spec(high="1Gi"), template=None)
    told.look(pod(**free))
    born = pod(uid="new", created=NOW + timedelta(minutes=2), **free)
    assert only(told.look(born, held=600)).memory.limit == 1024 * MI, "there was none"
    for held in (1200, 1200, 1200, 600, 1200):
        told.look(born, held=held)
    assert [(kill.limit, kill.then, kill.count) for kill in told.kills] == [(None, 1024 * MI, 1)] * 2


def test_what_is_held_within_the_users_own_limit_is_no_kill() -> None:
    told = Told(spec())
    told.look(held=1100)
    told.look(held=1023)
    assert told.kills == []


def test_killed_processes_are_told_and_those_with_far_more_room_not_shown() -> None:
    def looked(kills: int) -> Pod:
        return pod(usage=usage(kills=kills, before=3, peak=1024, anonymous=900))

    told = Told(spec())
    told.look(looked(3))
    assert told.kills == [], "those of before the first look are not of this time"
    told.look(looked(4))
    for _ in range(5):
        told.look(looked(4))
    shown = only(told.look(looked(6)))
    assert shown.usage.process_kills is not None
    assert (shown.memory.limit, shown.usage.process_kills.value) == (1536 * MI, 4)
    assert [(kill.count, kill.roomier) for kill in told.kills] == [(1, False), (2, True)]


def test_a_pod_that_is_born_later_has_what_was_decided_and_one_with_another_template_has_not() -> None:
    told = Told(spec())
    told.look()
    told.look(died(1, 2))
    born: dict[str, Any] = {"created": NOW + timedelta(minutes=3)}
    shown = only(told.look(pod(uid="new", **born)))
    assert (shown.memory.limit, bool(shown.decision)) == (1536 * MI, True)
    told = Told(spec())
    told.look()
    told.look(died(1, 2))
    other = worker(pod(uid="new", limit=3000, **born), limit=3000)
    shown_by, _ = told.past.shown(observed(other), {})
    assert only(shown_by).memory == memory(512, 3000)


def test_cpu_is_carried_out_too_where_the_policy_names_it() -> None:
    workers = [{"name": "*", "memory": {"min": "512Mi", "max": "4Gi"}, "cpu": {"min": "100m", "max": "4"}}]
    told = Told(spec(workers=workers, changes={"releases": True}), cpu=Cpu(2000, None))
    quiet = pod(usage=usage(anonymous=300, cpu=0.2), cpu=Cpu(2000, None), running_cpu=Cpu(2000, None))
    hours = {name: History(hour_of(NOW) - 200, (most,) * 200) for name, most in ((of_cpu("worker/default"), 200),)}
    told.look(quiet, histories=hours)
    shown = only(told.look(quiet, histories=hours))
    assert shown.cpu == shown.running_cpu
    assert 200 <= (shown.cpu.request or 0) < 500
    assert (shown.resized_cpu, shown.resized) == (True, False)
    born = replace(quiet, uid="new", created=NOW + timedelta(minutes=3))
    assert only(told.look(born, histories=hours)).cpu == shown.cpu
    other = replace(quiet, cpu=Cpu(3000, None), running_cpu=Cpu(3000, None))
    assert only(told.look(other, histories=hours)).cpu == Cpu(3000, None), "its user has changed it in place"


def flowing(queued: int, running: int) -> Mapping[str, Any]:
    return {"airflow": airflow(tasks(queued, running)), "broker": ""}


def of(shown: Observation) -> tuple[int, int]:
    assert shown.airflow.tasks is not None
    return shown.airflow.tasks.waiting_in(None), shown.airflow.tasks.running_in(None)


def test_tasks_that_waited_run_where_there_would_have_been_slots() -> None:
    told = Told(slots_spec(1, 16), live=True, slots=2)
    busy = pod(usage=usage(cpu=0.5, node_cpu=0.1, anonymous=400))
    told.look(busy, **flowing(20, 2))
    slots = [told.look(busy, **flowing(20, 2)) for _ in range(20)]
    (workload,) = slots[-1].workloads
    reached = in_force(workload.pods[0], workload)
    assert reached is not None
    assert reached > 2
    waiting, running = of(slots[-1])
    assert waiting + running == 22
    assert running == min(22, reached), "all slots are taken while tasks wait"
    assert of(told.look(busy, **flowing(0, 2))) == (0, 2)


@given(st.integers(0, 50), st.integers(0, 8), st.integers(1, 16))
def test_no_task_is_lost_or_made_up(queued: int, running: int, slots: int) -> None:
    past = Counterfactual(live=True)
    item: Workload = worker(pod(), stated=Values(concurrency=8))
    seen = observed(item, **flowing(queued, running))
    past.shown(seen, {})
    own = past._pods[item.pods[0].uid]  # noqa: SLF001 - instead of a decision
    own.environment = {api.EnvName.CONCURRENCY: f"{slots}"}
    shown, _ = past.shown(seen, {})
    waiting, now = of(shown)
    assert waiting + now == queued + running
    assert now >= running if slots > 8 else now == min(running, slots)
    assert waiting >= 0


def test_workers_are_taken_to_share_what_runs_until_one_has_died() -> None:
    past = Counterfactual(live=True)
    item = worker(pod(), pod("airflow-worker-1"), pod("airflow-worker-2"), stated=Values(concurrency=4))
    (shown,) = past.shown(observed(item, **flowing(0, 7)), {})[0].workloads
    assert [pod.slots and (pod.slots.processes, pod.slots.busy) for pod in shown.pods] == [(4, 3), (4, 2), (4, 2)]
    dead = replace(item, pods=(pod(died=NOW), *item.pods[1:]))
    (shown,) = past.shown(observed(dead, **flowing(0, 7)), {})[0].workloads
    assert {pod.slots for pod in shown.pods} == {None}
    (shown,) = Counterfactual(live=False).shown(observed(item, **flowing(0, 7)), {})[0].workloads
    assert {pod.slots for pod in shown.pods} == {None}


@pytest.mark.parametrize("live", [True, False])
def test_slots_change_in_running_workers_only_over_a_broker(live: bool) -> None:
    told = Told(slots_spec(1, 16), live=live, slots=2)
    busy = pod(usage=usage(cpu=0.5, node_cpu=0.1, anonymous=400))
    for _ in range(5):
        shown = told.look(busy, **flowing(20, 2))
    (workload,) = shown.workloads
    assert ((in_force(workload.pods[0], workload) or 0) > 2) is live
