"""What is remembered beside the status, and when it counts."""

from dataclasses import replace

from airflow_tuner import api, checkpoint, status
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
