"""What the recorder writes, as the API server keeps it and as `kubectl describe` shows it."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from airflow_tuner import api
from airflow_tuner.cluster import Cluster, policy_path
from airflow_tuner.errors import Stale
from airflow_tuner.model import Finding, Memory, Pod, Severity, TargetDecision, Workload
from airflow_tuner.recorder import Recorder
from airflow_tuner.restarts import Waiting
from testbed.played_airflow import PlayedAirflow

Object = dict[str, Any]
Job = Callable[[Recorder, Object], Awaitable[None]]

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Desk:
    """A policy, and operators that write about it."""

    airflow: PlayedAirflow
    name: str = "airflow"

    def write(self, job: Job) -> None:
        """Let an operator that has just begun do a job on the policy as it is now."""

        async def run() -> None:
            async with await Cluster.connect(self.airflow.control_plane.kubeconfig) as cluster:
                policy = await cluster.get(policy_path(self.airflow.namespace, self.name))
                await job(Recorder(cluster, "operator-0"), policy)

        asyncio.run(run())

    def events(self) -> list[Object]:
        """The policy's Events."""
        shown = json.loads(self.airflow.kubectl("get", "events.events.k8s.io", "--output=json"))["items"]
        found = [event for event in shown if event["regarding"]["name"] == self.name]
        return sorted(found, key=lambda event: str(event["metadata"]["name"]))

    def counts(self) -> dict[str, int]:
        """How often each thing was told, by reason."""
        return {event["reason"]: (event.get("series") or {}).get("count", 1) for event in self.events()}

    def described(self) -> list[tuple[str, str, str, str]]:
        """The Events as people see them: type, reason, how often, note."""
        text = self.airflow.kubectl("describe", "tuningpolicy", self.name).partition("\nEvents:")[2]
        lines = (re.split(r"\s{2,}", line.strip(), maxsplit=4) for line in text.splitlines()[3:])
        return [(line[0], line[1], line[2].partition(" (")[2].partition(" ")[0], line[4]) for line in lines]


@pytest.fixture
def desk(airflow: PlayedAirflow) -> Desk:
    """The policy `airflow`; no operator runs."""
    airflow.policy()
    return Desk(airflow)


def change(decision: str, minutes: float = 0, **fields: Any) -> api.Change:  # noqa: ANN401 - any field of a change
    """A change so long ago."""
    known: Object = {
        "time": (NOW - timedelta(minutes=minutes)).isoformat(),
        "decision": decision,
        "target": "worker/default",
        "reason": "OutOfMemory",
        "from_": api.Values(limit="700Mi"),
        "to": api.Values(limit="1050Mi"),
        "message": f"Memory limit 700 MiB -> 1050 MiB ({decision}).",
    }
    return api.Change(**{**known, **fields})


def finding(reason: str = "OutOfMemory", target: str = "worker/default", message: str = "One was killed.") -> Finding:
    """A finding that begins now."""
    return Finding(reason, Severity.WARNING, target, message, NOW)


def status(*found: Finding) -> api.Status:
    """A status with these findings."""
    return api.Status(
        findings=[
            api.FindingStatus(
                reason=one.reason,
                severity=one.severity.value,
                target=one.target,
                message=one.message,
                since=one.since.isoformat(),
            )
            for one in found
        ]
    )


def test_every_change_is_told_once_whoever_tells_it(desk: Desk) -> None:
    history = [change("d-3", reason="Released"), change("d-2", 10), change("d-1", 49), change("d-0", 51)]
    new = api.Status(history=history)

    async def tell(recorder: Recorder, policy: Object) -> None:
        await recorder.tell_changes(policy, new, NOW)
        await recorder.tell_changes(policy, new, NOW)

    desk.write(tell)
    desk.write(tell)
    notes = {reason: note for _, reason, _, note in desk.described()}
    assert [(kind, reason, times) for kind, reason, times, _ in sorted(desk.described())] == [
        ("Normal", "Released", ""),
        ("Normal", "Tuned", ""),
        ("Normal", "Tuned", ""),
    ], "an Event of an hour ago is the API server's to forget"
    assert notes["Released"] == "worker/default: Memory limit 700 MiB -> 1050 MiB (d-3)."
    event = desk.events()[0]
    assert event["metadata"]["name"] == "airflow.d-1"
    assert datetime.fromisoformat(event["eventTime"]) == datetime.fromisoformat(history[2].time)
    assert (event["reportingController"], event["reportingInstance"]) == ("airflow-tuner", "operator-0")


def test_changes_that_the_history_has_no_room_for_are_told_too(desk: Desk) -> None:
    made = [change(f"d-{number}", target=f"worker/{number}") for number in range(14)]

    async def tell(recorder: Recorder, policy: Object) -> None:
        for _ in range(2):
            await recorder.tell_changes(policy, api.Status(history=made[:10]), NOW, made)

    desk.write(tell)
    assert len(desk.events()) == 14


@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_checkpoint_that_is_too_large_for_etcd_stops_nothing_and_a_smaller_one_is_written(desk: Desk) -> None:
    answered = [api.Answered(pod="p" * 200, uid=f"{number:064}", deaths=1) for number in range(100)]

    def remembered(targets: int) -> api.Status:
        return api.Status(targets=[target(f"worker/{number}", answered) for number in range(targets)])

    async def remember(recorder: Recorder, policy: Object) -> None:
        for targets in (1, 60, 2):
            await recorder.remember(policy, remembered(targets))
        await recorder.recall(policy)
        found = recorder.memory(policy)
        assert found is not None
        assert len(found.targets) == 2

    desk.write(remember)


def target(name: str, answered: list[api.Answered]) -> api.Target:
    """A target whose kills were answered."""
    bare = api.Target(
        name=name,
        workload="StatefulSet/w",
        container="w",
        pods=1,
        template=api.Values(),
        running=api.Values(),
        recommended=api.Values(),
        why="",
    )
    return bare.model_copy(update={"answered": answered})


def test_advice_is_told_once(desk: Desk) -> None:
    async def tell(recorder: Recorder, policy: Object) -> None:
        for _ in range(2):
            await recorder.tell_advice(policy, "scheduler", "d-1", "More would be better.", NOW)

    desk.write(tell)
    assert desk.described() == [("Normal", "Recommended", "", "scheduler: More would be better.")]


def test_a_restart_is_told_once_for_each_pod_and_names_what_it_is_for(desk: Desk) -> None:
    pods = [
        Pod(f"airflow-dag-processor-{number}", f"uid-{number}", NOW, Memory(), None, decision="d-1")
        for number in (1, 2)
    ]
    workload = Workload(
        target="dag-processor",
        component="dag-processor",
        kind="Deployment",
        name="airflow-dag-processor",
        container="dag-processor",
        pod_labels={},
        requests={},
        limits={},
        template=Memory(),
        pods=tuple(pods),
    )
    target = TargetDecision(workload, "dagProcessor", workload.values, "")

    async def tell(recorder: Recorder, policy: Object) -> None:
        for pod in (*pods, pods[0]):
            await recorder.tell_restart(policy, Waiting(target, pod, "parsing interval 30 s -> 120 s"), NOW)

    desk.write(tell)
    desk.write(tell)
    told = "waits for parsing interval 30 s -> 120 s, and is evicted for it."
    assert sorted(desk.described()) == [
        ("Normal", "Restarted", "", f"dag-processor: airflow-dag-processor-{number} {told}") for number in (1, 2)
    ]


def test_a_finding_is_told_when_it_begins_ends_and_comes_again(desk: Desk) -> None:
    first, second = finding(message="1 was killed."), finding(message="2 were killed, which is another number.")
    turns = [(), (first,), (first,), (), (second,), (second,), ()]

    async def tell(recorder: Recorder, policy: Object) -> None:
        for number, (before, found) in enumerate(pairwise(turns)):
            await recorder.tell_findings(policy, status(*before), found, NOW, first=number == 0)

    desk.write(tell)
    assert sorted(desk.described()) == [
        ("Normal", "FindingEnded", "x2", "worker/default: OutOfMemory is over."),
        ("Warning", "OutOfMemory", "x2", "worker/default: 1 was killed."),
    ]
    assert desk.counts() == {"OutOfMemory": 2, "FindingEnded": 2}


def test_an_operator_that_begins_makes_up_for_what_was_not_told_and_counts_nothing_twice(desk: Desk) -> None:
    known, untold = finding(), finding("LimitsMissing", "scheduler", "It has none.")

    async def tell(recorder: Recorder, policy: Object) -> None:
        await recorder.tell_findings(policy, status(), (known,), NOW, first=True)

    async def begin(recorder: Recorder, policy: Object) -> None:
        await recorder.tell_findings(policy, status(known, untold), (known, untold), NOW, first=True)
        await recorder.tell_findings(policy, status(known, untold), (known, untold), NOW, first=False)

    desk.write(tell)
    desk.write(begin)
    desk.write(begin)
    assert desk.counts() == {"OutOfMemory": 1, "LimitsMissing": 1}


def test_findings_that_the_status_has_no_room_for_do_not_begin_anew_with_every_turn(desk: Desk) -> None:
    found = tuple(finding(target=f"worker/set{number}") for number in range(23))

    async def tell(recorder: Recorder, policy: Object) -> None:
        await recorder.tell_findings(policy, status(), found, NOW, first=True)
        for _ in range(2):
            await recorder.tell_findings(policy, status(*found[:20]), found, NOW, first=False)

    desk.write(tell)
    assert [(event.get("series") or {}).get("count", 1) for event in desk.events()] == [1] * 20


def test_a_finding_that_worse_ones_push_out_of_the_status_is_not_called_over(desk: Desk) -> None:
    found = tuple(finding(target=f"worker/set{number}") for number in range(21))

    async def tell(recorder: Recorder, policy: Object) -> None:
        await recorder.tell_findings(policy, status(*found[1:]), found, NOW, first=False)

    desk.write(tell)
    assert [event["reason"] for event in desk.events()] == ["OutOfMemory"]


def test_names_and_notes_of_any_length_are_told(airflow: PlayedAirflow) -> None:
    name = f"{'long.' * 50}ab"
    assert len(name) == 252
    policy = {
        "apiVersion": "airflow-tuner.dev/v1alpha1",
        "kind": "TuningPolicy",
        "metadata": {"name": name},
        "spec": {"airflow": {"release": "airflow"}},
    }
    airflow.apply(policy)
    desk = Desk(airflow, name)
    messages = {"d-ascii": "x" * 1024, "d-cut": "x" * 1023 + "…", "d-umlauts": "ü" * 1024, "d-short": "short"}

    async def tell(recorder: Recorder, policy: Object) -> None:
        history = [change(decision, message=message) for decision, message in messages.items()]
        history.append(change("e" * 63, target="worker/" + "t" * 240))
        await recorder.tell_changes(policy, api.Status(history=history), NOW)
        found = (finding("AdmissionNotEffective", "worker/" + "t" * 240, "ü" * 1024),)
        await recorder.tell_findings(policy, status(), found, NOW, first=True)

    desk.write(tell)
    notes = {event["metadata"]["name"].rpartition(".")[2]: event["note"] for event in desk.events()}
    assert len(desk.events()) == 6
    assert notes["d-short"] == "worker/default: short"
    assert all(len(note.encode()) <= 1024 for note in notes.values())
    assert all(len(notes[one].encode()) > 1020 and notes[one].endswith("…") for one in messages if one != "d-short")


def test_a_status_is_written_when_it_differs_and_only_upon_what_was_read(desk: Desk) -> None:
    new = api.Status(observed_generation=1, summary="0 of 1 tuned; nothing wrong")

    async def commit(recorder: Recorder, policy: Object) -> None:
        written = await recorder.commit(policy, new)
        assert written["status"]["summary"] == new.summary
        assert await recorder.commit(written, new) is written, "nothing differs, so nothing is sent"
        with pytest.raises(Stale):
            await recorder.commit(policy, new.model_copy(update={"summary": "from an old look"}))

    desk.write(commit)
    assert desk.airflow.status()["summary"] == new.summary
