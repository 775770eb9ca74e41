"""The API server fails in every way it can, under a running operator: nothing is done twice, and it goes on."""

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_tuner.brokers import Brokers
from airflow_tuner.cluster import Cluster
from airflow_tuner.lease import Lease, Terms
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder
from cluster import faults
from cluster.conftest import NOWHERE
from cluster.faults import Stage, Writes, condition, events, eventually
from cluster.fronts import Answer, ApiFront, Hold, Rule, refusal
from testbed.played_airflow import PlayedAirflow, played_airflow

LONG = 6.0
MOST_TURNS = 5
"""Within that time, for one policy, while requests fail."""
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
PODS = r"/pods\?.*watch=true"
POLICIES = r"/tuningpolicies\?.*watch=true"


@dataclass(frozen=True)
class Case:
    """One way to fail: what is answered to which requests of the namespace."""

    requests: str
    answer: Callable[[], Answer | None]
    says: str
    """What the operator's log, or the policy's status, has in it."""
    left: int = 1_000_000
    done: bool = False
    watches: bool = False
    """The watch of pods is cut first."""
    held: float = 0.0
    """How long it lasts after it was said, in seconds."""


CASES = {
    "conflict": Case(r"PUT .*/status", refusal(409, "the object has been modified"), "", left=3),
    "conflict-again": Case(r"PUT .*/status", refusal(409, "the object has been modified"), "", held=LONG),
    "refused-resize": Case(r"PATCH .*/resize", refusal(422, "the node cannot"), "ResizeRefused"),
    "too-many": Case(".*", refusal(429, "slow down", {"Retry-After": "1"}), "answered with 429", held=LONG),
    "error": Case(".*", refusal(500, "etcd is on fire"), "answered with 500"),
    "unavailable": Case(".*", refusal(503, "starting"), "answered with 503"),
    "forbidden": Case(".*", refusal(403, "no right"), "answered with 403", held=LONG),
    "hung-up": Case(".*", lambda: None, "does not answer"),
    "html": Case("GET ", lambda: Answer(body=b"<html>Sign in</html>"), "could not be read"),
    "lost-status": Case(r"PUT .*/status", lambda: None, "", left=1, done=True),
    "lost-resize": Case(r"PATCH .*/resize", lambda: None, "does not answer PATCH", left=1, done=True),
    "watch-gone": Case(".*watch=true", refusal(410, "too old"), "answered with 410", watches=True),
    "watch-refused": Case(".*watch=true", refusal(403, "no right"), "answered with 403", watches=True, held=LONG),
    "watch-unavailable": Case(".*watch=true", refusal(503, "starting"), "answered with 503", watches=True, held=LONG),
}
SINGLE = ("cut", "expired", "silent", "restarted", "unreachable")


@pytest.fixture(scope="module")
def stage(needs: Callable[..., None]) -> Iterator[Stage]:
    """The operator for the namespaces of all tests here, with a front before the API server."""
    needs("control-plane", "helm")
    names = [f"api-{name}" for name in (*CASES, *SINGLE)]
    with faults.staged("api-faults", NOWHERE, names, front=True) as stage:
        yield stage


@pytest.fixture
def api(stage: Stage) -> ApiFront:
    """The front."""
    assert stage.api is not None
    return stage.api


@pytest.fixture
def airflow(stage: Stage, request: pytest.FixtureRequest) -> Iterator[PlayedAirflow]:
    """One worker under a policy, in a namespace named for the test's parameter."""
    with played_airflow(stage.control_plane, f"api-{request.param}") as airflow:
        faults.deployed(airflow)
        airflow.policy()
        try:
            eventually(lambda: ready(airflow), lambda: f"a turn is done\n{stage.operator.log()}")
            yield airflow
        finally:
            airflow.kubectl("delete", "tuningpolicy", "airflow")


def ready(airflow: PlayedAirflow) -> bool:
    """A turn was finished."""
    return bool(condition(airflow, "Ready").get("status") == "True")


def answered(airflow: PlayedAirflow, stage: Stage, seconds: float = 40) -> float:
    """Wait until a killed container was answered, once; how long that took."""
    took = eventually(
        lambda: airflow.limits() == {"1050Mi"}, lambda: f"the kill is answered\n{stage.operator.log()}", seconds
    )
    eventually(lambda: ready(airflow), lambda: f"a turn was finished\n{stage.operator.log()}")
    assert [change["to"]["limit"] for change in airflow.status()["history"]] == ["1050Mi"]
    eventually(lambda: events(airflow, "Tuned"), "an Event says so")
    assert faults.times(events(airflow, "Tuned")) == 1
    assert "Traceback" not in stage.operator.log()
    return took


def said_in(stage: Stage, airflow: PlayedAirflow, text: str) -> bool:
    """The operator's log has it, or the policy's status."""
    return text in stage.operator.log() or text in str(airflow.status())


@pytest.mark.parametrize(("airflow", "name"), [(name, name) for name in CASES], indirect=["airflow"], ids=[*CASES])
def test_where_requests_fail_then_a_kill_is_answered_once_as_soon_as_they_do_not(
    name: str, stage: Stage, api: ApiFront, airflow: PlayedAirflow
) -> None:
    case, writes = CASES[name], Writes(stage.control_plane)
    log = len(stage.operator.log())
    own = rf"^(?=.*/namespaces/{airflow.namespace}/){case.requests}"
    rule = Rule(own, case.answer, case.left, done=case.done)
    eventually(lambda: api.watched(rf"{airflow.namespace}{PODS}"), "the pods are watched")
    with api.fault(rule):
        begun = time.monotonic()
        if case.watches:
            assert api.cut(rf"{airflow.namespace}{PODS}")
        airflow.kill(airflow.pods()[0])
        said = eventually(
            lambda: rule.hits and (case.says in stage.operator.log()[log:] or case.says in str(airflow.status())),
            lambda: f"it is said\n{stage.operator.log()}",
        )
        time.sleep(case.held)  # not a wait: what happens meanwhile is what is tested
        turns = api.count(rf"GET .*/namespaces/{airflow.namespace}/tuningpolicies(\?(?!.*watch)|$)", begun)
        seen = airflow.limits()
        meanwhile = writes.counted()
    if case.requests == ".*":
        assert seen == {"700Mi"}
        assert set(meanwhile) <= faults.TELLING, "without the API server nothing is done"
    assert turns <= MOST_TURNS or not case.held, "it does not storm a server that struggles"
    if name in {"refused-resize", "forbidden"}:
        faults.touch(airflow)  # what was refused is tried again after half a minute or a whole one
    recovered = answered(airflow, stage)
    assert stage.operator.program.running()
    lines = [line for line in stage.operator.log()[log:].splitlines() if case.says in line]
    told = (
        re.sub(r"^\S+ \S+ ", "", lines[0]) if lines and case.says else case.says or "nothing: it is tried again at once"
    )
    faults.note(f"api-{name}", said=said, recovered=recovered, writes=meanwhile, seen=told[:300])


@pytest.mark.parametrize("airflow", ["cut"], indirect=True)
def test_where_the_watch_of_pods_is_cut_then_a_kill_in_the_gap_is_found(
    stage: Stage, api: ApiFront, airflow: PlayedAirflow
) -> None:
    eventually(lambda: api.cut(rf"{airflow.namespace}{PODS}"), "the pods are watched")
    airflow.kill(airflow.pods()[0])
    took = answered(airflow, stage, 15)
    faults.note("api-watch-cut", said=None, recovered=took, writes={}, seen="The kill is found by the next turn.")


@pytest.mark.parametrize("airflow", ["expired"], indirect=True)
def test_where_watches_have_expired_then_they_begin_anew(stage: Stage, api: ApiFront, airflow: PlayedAirflow) -> None:
    eventually(lambda: api.inject(rf"{airflow.namespace}{PODS}", GONE), "the pods are watched")
    begun = time.monotonic()
    eventually(lambda: api.inject(rf"{airflow.namespace}{POLICIES}", GONE), "the policies are watched")
    eventually(lambda: api.count(rf"{airflow.namespace}{PODS}", begun), "the pods are watched again")
    eventually(lambda: api.count(rf"{airflow.namespace}{POLICIES}", begun), "the policies are watched again")
    faults.touch(airflow)
    airflow.kill(airflow.pods()[0])
    took = answered(airflow, stage, 15)
    faults.note("api-watch-expired", said=None, recovered=took, writes={}, seen="Both watches begin anew.")


@pytest.mark.parametrize("airflow", ["silent"], indirect=True)
def test_where_both_watches_fall_silent_then_the_usual_turn_finds_a_kill_and_a_change_of_the_policy(
    stage: Stage, api: ApiFront, airflow: PlayedAirflow
) -> None:
    for watch, what in ((PODS, "pods"), (POLICIES, "policies")):
        eventually(lambda watch=watch: api.silence(rf"{airflow.namespace}{watch}"), f"the {what} are watched")  # type: ignore[misc] # the default binds the loop's value
    begun = time.monotonic()
    airflow.kill(airflow.pods()[0])
    faults.touch(airflow)
    answered(airflow, stage)
    took = time.monotonic() - begun
    faults.note("api-watches-silent", said=None, recovered=took, writes={}, seen="The usual turn finds both.")


@pytest.mark.parametrize("airflow", ["unreachable"], indirect=True)
def test_where_everything_fails_for_less_than_the_deadline_then_the_lease_is_kept(
    stage: Stage, api: ApiFront, airflow: PlayedAirflow
) -> None:
    log, writes = len(stage.operator.log()), Writes(stage.control_plane)
    with api.fault(Rule("", refusal(503, "starting"))):
        api.cut("")
        airflow.kill(airflow.pods()[0])
        said = eventually(lambda: "the lease could not be renewed" in stage.operator.log()[log:], "it is said")
        assert writes.counted() == {}
    took = answered(airflow, stage)
    assert "the lease is lost" not in stage.operator.log()[log:]
    faults.note(
        "api-unreachable", said=said, recovered=took, writes={}, seen="the lease could not be renewed; it was kept"
    )


@pytest.mark.parametrize("airflow", ["restarted"], indirect=True)
def test_where_the_api_server_restarts_in_mid_turn_then_the_turn_is_taken_again(
    stage: Stage, api: ApiFront, airflow: PlayedAirflow
) -> None:
    hold, log = Hold(), len(stage.operator.log())
    with api.fault(Rule(rf"^PUT .*/namespaces/{airflow.namespace}/tuningpolicies/airflow/status", hold, left=1)):
        airflow.kill(airflow.pods()[0])
        assert hold.caught.wait(20), "the turn is at its commit"
        begun = time.monotonic()
        stage.control_plane.stop_api_server()
        hold.release()
        stage.control_plane.start_api_server()
        down = time.monotonic() - begun
    took = answered(airflow, stage)
    assert "does not answer" in stage.operator.log()[log:]
    faults.note(
        "api-restarted", said=None, recovered=took, writes={}, seen=f"The API server was away for {down:.0f} s."
    )


# Clocks that jump.

DAY = timedelta(days=1)


@pytest.mark.parametrize("jump", [2 * DAY, -2 * DAY], ids=["forward", "back"])
def test_where_the_clock_jumps_then_no_second_operator_acts(stage: Stage, jump: timedelta) -> None:
    terms = Terms(duration=3, deadline=2, renew=0.5, retry=0.2, again=0.2)
    namespace = f"clock-{zlib.crc32(str(jump).encode()):08x}"
    stage.control_plane.kubectl("create", "namespace", namespace)
    ahead = [timedelta()]

    async def both() -> None:
        kubeconfig = stage.control_plane.kubeconfig
        async with await Cluster.connect(kubeconfig) as one, await Cluster.connect(kubeconfig) as other:
            a = Lease(one, namespace, "a", terms, lambda: datetime.now(UTC) + ahead[0])
            b = Lease(other, namespace, "b", terms, lambda: datetime.now(UTC) - ahead[0])
            await a.acquire()
            held, waiting = asyncio.create_task(a.hold()), asyncio.create_task(b.acquire())
            await asyncio.sleep(terms.renew)
            ahead[0] = jump
            await asyncio.sleep(terms.duration + 1)
            assert not held.done(), "a wall clock that jumps costs no Lease"
            assert not waiting.done(), "and gives none"
            held.cancel()
            async with asyncio.timeout(20):
                await waiting
            for task in (held, waiting):
                task.cancel()

    asyncio.run(both())


def turns(airflow: PlayedAirflow, play: Callable[[Callable[[timedelta], Any]], Any]) -> None:
    """Play with turns of one operator process; each is told how far its clock is ahead."""

    async def run() -> None:
        ahead = [timedelta()]
        async with await Cluster.connect(airflow.control_plane.kubeconfig) as cluster:
            recorder, brokers = Recorder(cluster, "clock"), Brokers(cluster)
            turn = Turn(
                cluster, recorder, {}, brokers, airflow.namespace, "airflow", lambda: datetime.now(UTC) + ahead[0]
            )

            async def take(clock: timedelta) -> None:
                ahead[0] = clock
                await turn.run()

            await play(take)

    asyncio.run(run())


@pytest.mark.parametrize("jump", [2 * DAY, -2 * DAY], ids=["forward", "back"])
def test_where_the_clock_jumps_and_comes_back_then_turns_go_on_and_nothing_is_lowered(
    stage: Stage, jump: timedelta
) -> None:
    with played_airflow(stage.control_plane, f"jump-{zlib.crc32(str(jump).encode()):08x}") as airflow:
        faults.deployed(airflow)
        airflow.policy()

        async def play(take: Callable[[timedelta], Any]) -> None:
            await take(timedelta())
            airflow.kill(airflow.pods()[0])
            await take(timedelta())
            assert airflow.limits() == {"1050Mi"}
            for clock in (jump, jump, timedelta(), timedelta()):
                await take(clock)
                assert airflow.limits() == {"1050Mi"}
                assert ready(airflow)

        turns(airflow, play)


def test_where_the_clock_was_ahead_at_a_raise_then_the_next_kill_is_answered_all_the_same(stage: Stage) -> None:
    with played_airflow(stage.control_plane, "jump-ahead") as airflow:
        faults.deployed(airflow)
        airflow.policy()

        async def play(take: Callable[[timedelta], Any]) -> None:
            await take(timedelta())
            airflow.kill(airflow.pods()[0])
            await take(timedelta(hours=2))
            assert airflow.limits() == {"1050Mi"}
            airflow.run_all()
            airflow.kill(airflow.pods()[0])
            await take(timedelta())
            assert airflow.limits() != {"1050Mi"}

        turns(airflow, play)
