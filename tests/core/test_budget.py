"""One operator makes so many ordinary changes in an hour and no more; what answers a kill is never held."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, status
from airflow_tuner.budget import EXEMPT, WINDOW, Budget, Ledger
from core.test_concurrency import crowded, number
from core.worlds import NOW, applied, observed, pod, scheduler, slots_spec, spec, turn, usage, worker

MINUTE = timedelta(minutes=1)
SPENT = Budget(30, 30, NOW + 20 * MINUTE)
BOUNDS = {"memory": {"min": "2Gi", "max": "4Gi"}}


def change(reason: str, minutes_ago: float) -> api.Change:
    """An entry of a history."""
    time = (NOW - minutes_ago * MINUTE).isoformat()
    values = api.Values()
    return api.Change(time=time, decision="d", target="scheduler", reason=reason, from_=values, to=values, message="")


def test_with_nothing_left_an_ordinary_change_waits_and_the_finding_has_the_numbers() -> None:
    seen = crowded(60)
    assert turn(slots_spec(), seen).reasons == ["SlotsExhausted"]
    held = turn(slots_spec(), replace(seen, budget=SPENT))
    assert (held.reasons, number(held), held.status.tuned) == ([], 2, [])
    (told,) = [finding for finding in held.findings if finding.reason == "ChangeBudgetSpent"]
    assert (told.target, told.message) == (
        "policy",
        "The operator has made 30 ordinary changes within an hour, over all policies, of at most 30 (changes.perHour "
        "of its chart): until 12:20 it only answers kills. `kubectl get atp --all-namespaces` shows what it changed.",
    )
    after = replace(seen, at=NOW + 21 * MINUTE, budget=Budget(30, 29))
    assert turn(slots_spec(), after, held.status).reasons == ["SlotsExhausted"]


def test_a_kill_is_answered_all_the_same() -> None:
    last = turn(spec(), observed(worker(pod(died=NOW)), budget=SPENT))
    assert (last.reasons, last.limit) == (["OutOfMemory"], 1536)


def test_what_is_tuned_stays_tuned_while_the_rest_waits() -> None:
    first = turn(slots_spec(), crowded(60))
    more = replace(applied(first, seconds=600), airflow=crowded(200, 4).airflow)
    assert turn(slots_spec(), more, first.status).reasons == ["SlotsExhausted"]
    held = turn(slots_spec(), replace(more, budget=SPENT), first.status)
    assert held.reasons == []
    assert held.status.tuned == first.status.tuned


def test_what_was_recommended_waits_with_the_switch_to_enforce() -> None:
    seen = observed(worker(pod(died=NOW)))
    advised = turn(spec(mode="Recommend"), seen)
    later = replace(seen, at=NOW + MINUTE)
    held = turn(spec(), replace(later, budget=SPENT), advised.status)
    assert (held.reasons, held.status.tuned) == ([], [])
    free = turn(spec(), replace(later, at=NOW + 30 * MINUTE, budget=Budget(30, 0)), held.status)
    assert (free.reasons, free.limit) == (["Recommended"], 1536)


def test_what_pods_were_found_to_have_is_in_force_again_at_once_where_the_status_is_lost() -> None:
    first = turn(spec(), observed(worker(pod(died=NOW))))
    lost = turn(spec(), replace(applied(first, seconds=60), budget=SPENT))
    assert lost.status.tuned
    assert lost.limit == 1536


def test_bounds_that_the_user_changed_count_at_once_as_admission_refuses_what_is_outside() -> None:
    first = turn(spec(), observed(worker(pod(died=NOW))))
    held = replace(applied(first, seconds=60), budget=SPENT)
    assert turn(spec("2Gi"), held, first.status).limit == 2048
    assert turn(spec(high="1200Mi"), held, first.status).limit == 1200


def test_bounds_count_at_once_also_for_what_pods_were_found_to_have() -> None:
    first = turn(spec(), observed(worker(pod(died=NOW))))
    lost = turn(spec("2Gi"), replace(applied(first, seconds=60), budget=SPENT))
    assert (lost.request, lost.limit) == (2048, 2048)
    fresh = turn(spec("2Gi"), observed(worker(pod()), budget=SPENT))
    assert (fresh.reasons, fresh.limit) == ([], 1024), "a template below the minimum waits"


def test_the_last_one_that_is_left_is_spent_once_in_a_turn() -> None:
    both = observed(scheduler(pod("airflow-scheduler-0")), worker(pod()), budget=Budget(30, 29))
    last = turn(spec("2Gi", scheduler=BOUNDS), both)
    assert [one.target for one in last.decision.changes] == ["scheduler"]


def test_a_kill_of_the_nodes_shortage_is_not_forgotten_while_its_answer_waits() -> None:
    short = pod(request=256, usage=usage(kills=1, before=0, peak=600))
    seen = observed(worker(short, request=256))
    policy = spec("128Mi")
    assert turn(policy, seen).reasons == ["NodeMemoryPressure"]
    held = turn(policy, replace(seen, budget=SPENT))
    assert held.reasons == []
    assert turn(policy, replace(seen, at=NOW + MINUTE), held.status).reasons == ["NodeMemoryPressure"]


def test_in_mode_recommend_nothing_is_held_as_nothing_is_done() -> None:
    last = turn(slots_spec(mode="Recommend"), replace(crowded(60), budget=SPENT))
    assert last.reasons == ["SlotsExhausted"]
    assert "ChangeBudgetSpent" not in last.found


def test_where_changes_are_not_counted_none_is_held() -> None:
    assert turn(slots_spec(), crowded(60)).seen.budget is None


def test_the_ledger_begins_with_what_the_statuses_remember_of_the_last_hour() -> None:
    ledger = Ledger(3)
    odd = change("SlotsExhausted", 1).model_copy(update={"time": "yesterday"})
    naive = change("SlotsExhausted", 1).model_copy(update={"time": "2026-11-24T11:59:00"})
    ledger.recall(
        [
            [change("SlotsExhausted", 5), change("OutOfMemory", 6), change("MemoryForecast", 61)],
            [change("MemoryForecast", 50), odd, naive, change("DagsStale", -5)],
        ],
        NOW,
    )
    assert ledger.budget(NOW) == Budget(3, 2)
    ledger.spend(1, NOW)
    assert ledger.budget(NOW) == Budget(3, 3, NOW + 10 * MINUTE)
    assert ledger.budget(NOW + 10 * MINUTE) == Budget(3, 2)


def test_what_was_not_written_is_not_spent() -> None:
    ledger = Ledger(5)
    ledger.spend(2, NOW)
    ledger.spend(1, NOW)
    ledger.refund(1)
    assert ledger.budget(NOW).made == 2
    ledger.refund(0)
    assert ledger.budget(NOW).made == 2


@given(most=st.integers(1, 6), gaps=st.lists(st.integers(0, 90), max_size=40))
def test_in_no_hour_there_are_more_changes_than_the_budget(most: int, gaps: list[int]) -> None:
    ledger, now, made = Ledger(most), NOW, []
    for gap in gaps:
        now += gap * MINUTE
        left = ledger.budget(now)
        if left.left:
            ledger.spend(1, now)
            made.append(now)
        else:
            assert left.again is not None
            assert now < left.again <= now + WINDOW
            assert ledger.budget(left.again).left, "then there is one again"
    for at in made:
        assert sum(at <= other < at + WINDOW for other in made) <= most


@pytest.mark.parametrize("reason", sorted(EXEMPT))
def test_every_reason_that_is_exempt_is_one_of_a_change(reason: str) -> None:
    folder = Path(status.__file__).parent
    texts = [path.read_text() for path in folder.glob("*.py") if path.name != "budget.py"]
    assert any(f'"{reason}"' in text for text in texts)
