"""The Lease on a real API server: at most one operator acts, whatever becomes of the other or of the server."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_tuner.cluster import Cluster
from airflow_tuner.lease import NAME, Lease, Terms
from cluster.relay import relayed
from testbed.controlplane import ControlPlane

SHORT = Terms(duration=3, deadline=2, renew=0.5, retry=0.2, again=0.2)
SLACK = 1.5
"""Seconds that a busy machine may add."""


@dataclass(frozen=True)
class Place:
    """A namespace for a Lease."""

    control_plane: ControlPlane
    namespace: str

    @asynccontextmanager
    async def lease(self, identity: str, terms: Terms = SHORT, kubeconfig: Path | None = None) -> AsyncIterator[Lease]:
        """A Lease over a connection of its own, as each operator has."""
        async with await Cluster.connect(kubeconfig or self.control_plane.kubeconfig) as cluster:
            yield Lease(cluster, self.namespace, identity, terms)

    def spec(self) -> dict[str, object]:
        """What the API server has."""
        shown = self.control_plane.kubectl("get", "lease", NAME, f"--namespace={self.namespace}", "--output=json")
        return dict(json.loads(shown)["spec"])

    async def holder(self) -> object:
        """Who holds it, as the API server has it."""
        return (await asyncio.to_thread(self.spec)).get("holderIdentity")


@pytest.fixture
def place(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A namespace of the test's own."""
    namespace = f"lease-{zlib.crc32(request.node.name.encode()):08x}"
    control_plane.kubectl("create", "namespace", namespace)
    yield Place(control_plane, namespace)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


async def seconds(awaited: Awaitable[None], most: float = 20) -> float:
    """How long it takes; it must end."""
    begun = time.monotonic()
    async with asyncio.timeout(most):
        await awaited
    return time.monotonic() - begun


async def ended(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_only_one_of_many_holds_it(place: Place) -> None:
    async def race() -> None:
        async with place.lease("a") as a, place.lease("b") as b, place.lease("c") as c:
            tasks = {one: asyncio.create_task(lease.acquire()) for one, lease in (("a", a), ("b", b), ("c", c))}
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            (first,) = [one for one, task in tasks.items() if task.done()]
            held = asyncio.create_task({"a": a, "b": b, "c": c}[first].hold())
            await asyncio.sleep(SHORT.duration + SLACK)
            assert [one for one, task in tasks.items() if task.done()] == [first], "it renews, and the others wait"
            assert not held.done()
            assert await place.holder() == first
            await ended(held, *tasks.values())

    asyncio.run(race())


def test_one_that_stops_renewing_is_followed_after_the_duration_and_not_before(place: Place) -> None:
    async def follow() -> None:
        async with place.lease("dead") as dead, place.lease("next") as following:
            await dead.acquire()
            took = await seconds(following.acquire())
            assert SHORT.duration - SHORT.retry <= took < SHORT.duration + SHORT.retry + SLACK
            assert await place.holder() == "next"
            assert await seconds(dead.hold()) < SHORT.deadline + SLACK, "the dead one comes back and sees it"
            assert await place.holder() == "next"

    asyncio.run(follow())


def test_a_holder_that_is_replaced_stops_at_its_next_renewal(place: Place) -> None:
    async def replaced() -> None:
        async with place.lease("a") as a:
            await a.acquire()
            held = asyncio.create_task(a.hold())
            await asyncio.sleep(0)
            patch = json.dumps({"spec": {"holderIdentity": "b"}})
            words = ("patch", "lease", NAME, f"--namespace={place.namespace}", "--type=merge", f"--patch={patch}")
            await asyncio.to_thread(place.control_plane.kubectl, *words)
            assert await seconds(held) < SHORT.renew + SLACK

    asyncio.run(replaced())


def test_one_that_is_released_is_taken_at_once(place: Place) -> None:
    async def hand_over() -> None:
        async with place.lease("a", Terms()) as a, place.lease("b", Terms(retry=0.2)) as b:
            await a.acquire()
            waiting = asyncio.create_task(b.acquire())
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await a.release()
            assert await seconds(waiting) < SLACK
            assert await place.holder() == "b"
            await a.release()
            assert await place.holder() == "b", "only the holder gives it up"

    asyncio.run(hand_over())


def test_a_killed_holder_takes_it_back_at_once_under_its_old_name(place: Place) -> None:
    async def again() -> None:
        async with place.lease("airflow-tuner-0", Terms()) as first:
            await first.acquire()
        before = place.spec()
        async with place.lease("airflow-tuner-0", Terms()) as second:
            assert await seconds(second.acquire()) < SLACK
        after = place.spec()
        assert after["acquireTime"] == before["acquireTime"], "it never was anyone else's"
        assert str(after["renewTime"]) > str(before["renewTime"])

    asyncio.run(again())


def test_one_that_somebody_deletes_or_empties_is_taken_anew(place: Place) -> None:
    async def deleted() -> None:
        async with place.lease("a") as a:
            await a.acquire()
            held = asyncio.create_task(a.hold())
            words = ("delete", "lease", NAME, f"--namespace={place.namespace}")
            await asyncio.to_thread(place.control_plane.kubectl, *words)
            await asyncio.sleep(2 * SHORT.renew + SLACK)
            assert not held.done()
            assert await place.holder() == "a"
            await ended(held)

    asyncio.run(deleted())
    place.control_plane.kubectl("delete", "lease", NAME, f"--namespace={place.namespace}")
    bare = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}}
    place.control_plane.kubectl("create", f"--namespace={place.namespace}", "-f", "-", input=json.dumps(bare))

    async def take() -> None:
        async with place.lease("b") as b:
            assert await seconds(b.acquire()) < SLACK

    asyncio.run(take())
    assert place.spec()["holderIdentity"] == "b"


def test_the_usual_terms_leave_time_between_the_end_of_one_and_the_begin_of_the_next(place: Place) -> None:
    terms = Terms()
    assert terms.renew < terms.deadline < terms.duration

    async def take() -> None:
        async with place.lease("a", terms) as a:
            await a.acquire()

    asyncio.run(take())
    assert place.spec()["leaseDurationSeconds"] == 15


@pytest.mark.parametrize("how", ["gone", "silent"])
def test_without_the_api_server_the_holder_stops_before_the_next_may_begin(
    place: Place, tmp_path: Path, how: str
) -> None:
    async def outage() -> None:
        async with (
            relayed(place.control_plane, tmp_path) as relay,
            place.lease("a", kubeconfig=relay.kubeconfig) as a,
            place.lease("b") as b,
        ):
            await a.acquire()
            held = asyncio.create_task(a.hold())
            waiting = asyncio.create_task(b.acquire())
            await asyncio.sleep(2 * SHORT.renew)
            assert not held.done()
            begun = time.monotonic()
            if how == "gone":
                await relay.cut()
            else:
                relay.silence()
            await seconds(held)
            took = time.monotonic() - begun
            assert not waiting.done(), "the other one waits until this one has stopped"
            assert SHORT.deadline - SHORT.renew - 0.5 < took < SHORT.deadline + 0.5, (
                "a short outage is no reason to stop"
            )
            assert await seconds(a.release()) < SHORT.deadline / 2 + 0.5
            await seconds(waiting)
            assert await place.holder() == "b"

    asyncio.run(outage())


def test_an_outage_that_ends_within_the_deadline_costs_nothing(place: Place, tmp_path: Path) -> None:
    async def blip() -> None:
        async with (
            relayed(place.control_plane, tmp_path) as relay,
            place.lease("a", kubeconfig=relay.kubeconfig) as a,
        ):
            await a.acquire()
            held = asyncio.create_task(a.hold())
            await asyncio.sleep(SHORT.renew)
            await relay.cut()
            await asyncio.sleep(SHORT.deadline / 3)
            await relay.open()
            await asyncio.sleep(SHORT.deadline)
            assert not held.done()
            await ended(held)

    asyncio.run(blip())


def test_the_deadline_counts_from_the_last_renewal_and_not_from_when_hold_is_called(place: Place) -> None:
    async def late() -> None:
        async with place.lease("a") as a:
            await a.acquire()
            await asyncio.sleep(SHORT.deadline + 0.1)
            assert await seconds(a.hold()) < 0.2

    asyncio.run(late())
