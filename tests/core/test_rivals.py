"""Of two policies for one Airflow, the older one acts."""

from dataclasses import replace
from typing import Any

import pytest

from airflow_tuner import rivals
from core.worlds import NOW, observed, pod, spec, turn, worker

LABELS = {"tier": "airflow", "component": "worker", "release": "airflow"}
WORKLOADS = (replace(worker(), labels=LABELS),)


def policy(name: str, minute: int, *, mode: str = "Enforce", **airflow: Any) -> dict[str, Any]:  # noqa: ANN401 - a spec
    """A policy created in this minute, for the release `airflow` if nothing else is said."""
    return {
        "metadata": {"name": name, "creationTimestamp": f"2026-11-24T12:{minute:02}:00Z"},
        "spec": {"mode": mode, "airflow": airflow or {"release": "airflow"}},
    }


def test_the_oldest_acts_and_of_the_same_age_the_first_by_name() -> None:
    a, b, c = policy("a", 2), policy("b", 1), policy("c", 1)
    assert [rivals.elder(one, (a, b, c), WORKLOADS) for one in (a, b, c)] == ["b", "", "b"]


@pytest.mark.parametrize(
    "other",
    [
        policy("old", 1, mode="Recommend"),
        policy("old", 1, release="another"),
        policy("old", 1, selector={"matchLabels": {"tier": "elsewhere"}}),
        {**policy("old", 1), "metadata": {**policy("old", 1)["metadata"], "deletionTimestamp": "2026-11-24T12:02:00Z"}},
        {**policy("old", 1), "spec": {"airflow": 7}},
    ],
)
def test_one_that_does_not_act_here_is_no_rival(other: dict[str, Any]) -> None:
    assert rivals.elder(policy("new", 5), (other,), WORKLOADS) == ""


def test_another_selector_that_meets_the_same_workloads_is_one() -> None:
    other = policy("old", 1, selector={"matchLabels": {"component": "worker"}})
    assert rivals.elder(policy("new", 5), (other,), WORKLOADS) == "old"


def test_the_younger_releases_what_it_had_tuned_and_says_why() -> None:
    first = turn(spec(), observed(worker(pod(died=NOW))))
    seen = replace(first.seen, elder="old")
    last = turn(spec(mode="Recommend"), seen, first.status)
    assert (last.reasons, last.status.tuned) == (["Released"], [])
    assert last.status.history[0].message.startswith("Released: the older TuningPolicy old tunes this Airflow.")
    assert "AnotherPolicyActs" in last.found
    ready = next(item for item in last.status.conditions if item.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "AnotherPolicyActs")
