"""What is remembered beside the status, and when it counts."""

from dataclasses import replace
from random import Random

import jsonschema

from airflow_tuner import api, checkpoint, crd, status
from airflow_tuner.history import HOURS, History, of_tasks
from core.worlds import NOW, Turn, applied, observed, pod, reborn, spec, turn, worker

UID = "policy-uid"


def tuned() -> Turn:
    """A worker whose limit was raised from 1024 to 1536 MiB for a kill."""
    return turn(spec(), observed(worker(pod(died=NOW))))


def memory_of(last: Turn) -> api.Remembered:
    """Through the form it has in the API server."""
    written = checkpoint.remembered(last.status, UID).model_dump(
        by_alias=True, exclude_none=True, exclude_defaults=True, mode="json"
    )
    return api.Remembered.model_validate(written)


def test_a_lost_status_comes_back_as_it_was_and_changes_nothing() -> None:
    first = tuned()
    seen = applied(first, seconds=60)
    prior = checkpoint.recalled(api.Status(), memory_of(first), UID, seen)
    again, unlost = turn(spec(), seen, prior), turn(spec(), seen, first.status)
    assert (again.reasons, again.limit) == ([], 1536)
    assert (again.status.tuned, again.status.history) == (unlost.status.tuned, unlost.status.history)
    assert again.status.targets == unlost.status.targets


def test_kills_that_were_answered_stay_answered() -> None:
    first = tuned()
    prior = checkpoint.recalled(api.Status(), memory_of(first), UID, first.seen)
    assert turn(spec(), first.seen, prior).reasons == []


def test_a_status_that_is_there_goes_before_the_checkpoint() -> None:
    first = tuned()
    old = memory_of(turn(spec(), observed(worker(pod()))))
    assert checkpoint.recalled(first.status, old, UID, first.seen) is first.status


def test_the_memory_of_a_deleted_policy_of_the_same_name_does_not_count() -> None:
    first = tuned()
    assert checkpoint.recalled(api.Status(), memory_of(first), "another-uid", first.seen) == api.Status()


def test_where_pods_have_more_than_is_remembered_they_are_asked_instead() -> None:
    old, first = memory_of(turn(spec(), observed(worker(pod())))), tuned()
    seen = reborn(first)
    last = turn(spec(), seen, checkpoint.recalled(api.Status(), old, UID, seen))
    assert last.limit == 1536
    assert last.target.why.startswith("Adopted from 1 pod")


def test_what_can_be_seen_again_is_no_reason_to_write_a_checkpoint() -> None:
    first = tuned()
    more = replace(first.seen, workloads=(worker(pod(died=NOW), pod("airflow-worker-1")),))
    second = turn(spec(), more, first.status)
    assert status.as_written(second.status) != status.as_written(first.status)
    assert memory_of(second) == memory_of(first)


def test_histories_of_any_load_leave_room_for_the_rest_of_a_checkpoint() -> None:
    random = Random(1)  # noqa: S311 - a load, not a secret
    peaks = {
        f"worker/group-{number}{kind}": History(500_000 + number, tuple(random.choices(range(1, 2**24), k=HOURS)))
        for number in range(80)
        for kind in ("", " tasks", " cpu")
    }
    kept = checkpoint.remembered(tuned().status, UID, peaks).peaks
    assert 100 < len(kept) < 240
    assert sum(len(item.packed) for item in kept) <= 800 * 1024
    assert "worker/group-79" in {item.target for item in kept}, "what was seen last goes before the rest"


def test_the_history_of_a_workload_with_the_longest_name_is_kept() -> None:
    name = of_tasks(f"worker/{'n' * 253}")
    memory = checkpoint.remembered(tuned().status, UID, {name: History(1, (1,))})
    written = {"memory": memory.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json")}
    jsonschema.validate(written["memory"], crd.schema(api.TuningCheckpoint)["properties"]["memory"])
