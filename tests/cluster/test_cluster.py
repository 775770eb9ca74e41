"""Our connection to a real API server: what it can do, and which error of ours each refusal becomes."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_tuner import cluster as module
from airflow_tuner import inventory
from airflow_tuner.cluster import MERGE, Cluster, NotFound, path
from airflow_tuner.errors import Misconfigured, Refused, Stale, Unavailable
from cluster.relay import relayed
from testbed.controlplane import ControlPlane
from testbed.processes import free_port

Object = dict[str, Any]
Job = Callable[[Cluster], Awaitable[None]]

POD = {
    "metadata": {"name": "w", "labels": {"app": "w"}},
    "spec": {
        "schedulingGates": [{"name": "tests.example/never"}],
        "containers": [
            {
                "name": "worker",
                "image": "none",
                "resources": {"requests": {"memory": "100Mi"}, "limits": {"memory": "200Mi"}},
            }
        ],
    },
}


@dataclass(frozen=True)
class Place:
    """A namespace, and a way to the API server."""

    control_plane: ControlPlane
    namespace: str

    def maps(self, name: str = "", namespace: str = "") -> str:
        """Path of the ConfigMaps or of one."""
        return path("v1", "configmaps", namespace or self.namespace, name)

    def do(self, job: Job, kubeconfig: Path | None = None) -> None:
        """Run a job over a connection of its own."""

        async def run() -> None:
            async with await Cluster.connect(kubeconfig or self.control_plane.kubeconfig) as cluster:
                await job(cluster)

        asyncio.run(run())


@pytest.fixture
def place(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A namespace of the test's own."""
    namespace = f"cluster-{zlib.crc32(request.node.name.encode()):08x}"
    control_plane.kubectl("create", "namespace", namespace)
    yield Place(control_plane, namespace)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def named(name: str, **labels: str) -> Object:
    """A ConfigMap."""
    return {"metadata": {"name": name, "labels": labels}, "data": {"key": "old"}}


def test_objects_are_created_read_listed_patched_and_replaced(place: Place) -> None:
    async def job(cluster: Cluster) -> None:
        assert await cluster.create(place.maps(), named("a", app="x"))
        assert await cluster.create(place.maps(), named("b", app="x", tier="y"))
        assert not await cluster.create(place.maps(), named("a")), "one of that name exists"
        one = await cluster.get(place.maps("a"))
        assert (one["kind"], one["data"]) == ("ConfigMap", {"key": "old"})
        assert [item["metadata"]["name"] for item in await cluster.list(place.maps(), {"app": "x"})] == ["a", "b"]
        assert [item["metadata"]["name"] for item in await cluster.list(place.maps(), {"app": "x", "tier": "y"})] == [
            "b"
        ]
        assert await cluster.list(place.maps(), {"app": "z"}) == []
        patched = await cluster.patch(place.maps("a"), {"data": {"more": "ü"}}, MERGE)
        assert patched["data"] == {"key": "old", "more": "ü"}
        replaced = await cluster.replace(place.maps("a"), {**patched, "data": {"key": "new"}})
        assert replaced["data"] == {"key": "new"}
        managers = {entry["manager"] for entry in replaced["metadata"]["managedFields"]}
        assert managers == {inventory.FIELD_MANAGER}
        assert cluster.calls == 9

    place.do(job)


def test_what_is_not_there_is_not_found(place: Place) -> None:
    async def job(cluster: Cluster) -> None:
        for ask in (
            cluster.get(place.maps("none")),
            cluster.patch(place.maps("none"), {"data": {}}, MERGE),
            cluster.replace(place.maps("none"), named("none")),
            cluster.create(place.maps(namespace="nowhere"), named("a")),
            cluster.list(path("nothing.example/v1", "things", place.namespace), {}),
        ):
            with pytest.raises(NotFound, match="was answered with 404"):
                await ask

    place.do(job)


def test_a_write_upon_an_old_version_is_stale(place: Place) -> None:
    async def job(cluster: Cluster) -> None:
        await cluster.create(place.maps(), named("a"))
        old = await cluster.get(place.maps("a"))
        await cluster.patch(place.maps("a"), {"data": {"key": "new"}}, MERGE)
        with pytest.raises(Stale, match="the object has been modified"):
            await cluster.replace(place.maps("a"), old)
        version = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}}
        with pytest.raises(Stale):
            await cluster.patch(place.maps("a"), version | {"data": {"key": "older"}}, MERGE)
        with pytest.raises(Stale):
            await cluster.patch(place.maps("a"), {"metadata": {"uid": "another"}, "data": {}}, MERGE)
        assert (await cluster.get(place.maps("a")))["data"] == {"key": "new"}

    place.do(job)


def test_who_has_no_right_is_refused_and_told_which(place: Place, tmp_path: Path) -> None:
    place.control_plane.kubectl("create", "serviceaccount", "nobody", f"--namespace={place.namespace}")
    kubeconfig = place.control_plane.kubeconfig_for_service_account(place.namespace, "nobody", tmp_path / "kubeconfig")
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]

    async def forbidden(cluster: Cluster) -> None:
        with pytest.raises(
            Refused, match=r'403: configmaps is forbidden: .* cannot list resource "configmaps"'
        ) as told:
            await cluster.list(place.maps(), {})
        assert not isinstance(told.value, NotFound)
        with pytest.raises(Refused, match='cannot create resource "configmaps"'):
            await cluster.create(place.maps(), named("a"))
        with pytest.raises(Refused, match='cannot list resource "configmaps"'):
            await anext(cluster.watch(place.maps(), {}))
        assert token not in str(told.value)

    async def unknown(cluster: Cluster) -> None:
        with pytest.raises(Refused, match="401: Unauthorized") as told:
            await cluster.get(place.maps("a"))
        assert token[:40] not in str(told.value)

    place.do(forbidden, kubeconfig)
    kubeconfig.write_text(kubeconfig.read_text().replace(token, token[:-8] + "AAAAAAAA"))
    place.do(unknown, kubeconfig)


def test_what_the_api_server_cannot_accept_is_refused_with_its_reason(place: Place) -> None:
    async def job(cluster: Cluster) -> None:
        with pytest.raises(Refused, match=r"422: .*Invalid value"):
            await cluster.create(place.maps(), named("Not A Name"))
        with pytest.raises(Refused, match="400: "):
            await cluster.list(place.maps(), {"a b": "c=d"})

    place.do(job)


def test_a_server_that_is_gone_is_unavailable_at_once(place: Place, tmp_path: Path) -> None:
    async def run() -> None:
        async with relayed(place.control_plane, tmp_path) as relay, await Cluster.connect(relay.kubeconfig) as cluster:
            assert await cluster.list(place.maps(), {"app": "x"}) == []
            watch = cluster.watch(place.maps(), {})
            pending = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.5)
            await relay.cut()
            with pytest.raises(Unavailable, match=r"The watch of .* broke off: "):
                await pending
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(Unavailable, match="The API server does not answer GET "):
                    await cluster.get(place.maps("a"))
                assert time.monotonic() - begun < 2
            await relay.open()
            assert await cluster.list(place.maps(), {"app": "x"}) == []

    asyncio.run(run())


@pytest.mark.parametrize("connected", [True, False])
def test_a_server_that_says_nothing_is_unavailable_within_the_time_limit(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 1.0)

    async def run() -> None:
        async with relayed(place.control_plane, tmp_path) as relay, await Cluster.connect(relay.kubeconfig) as cluster:
            if connected:
                await cluster.list(place.maps(), {})
            relay.silence()
            for ask in (
                cluster.get(place.maps("a")),
                cluster.create(place.maps(), named("a")),
                anext(cluster.watch(place.maps(), {})),
            ):
                begun = time.monotonic()
                with pytest.raises(Unavailable, match=r"The API server does not answer (GET|POST) .*: TimeoutError"):
                    await ask
                assert 0.9 < time.monotonic() - begun < 2

    asyncio.run(run())


def test_a_server_that_nobody_vouches_for_is_not_talked_to(place: Place, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    settings = json.loads(place.control_plane.kubectl("config", "view", "--raw", "--output=json"))
    settings["clusters"][0]["cluster"] = {"server": place.control_plane.url}
    kubeconfig.write_text(json.dumps(settings))

    async def job(cluster: Cluster) -> None:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await cluster.get(place.maps("a"))

    place.do(job, kubeconfig)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "not: [yaml",
        "{}",
        '{"current-context": "none", "contexts": [], "clusters": [], "users": []}',
        "missing",
    ],
)
def test_a_kubeconfig_that_leads_nowhere_is_told(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "kubeconfig"
    if text == "missing":
        cluster = {"server": f"https://127.0.0.1:{free_port()}", "certificate-authority": str(tmp_path / "none.crt")}
        text = json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    if text is not None:
        file.write_text(text)
    with pytest.raises(
        Misconfigured, match=r"^No way into a cluster: .*Give --kubeconfig or set KUBECONFIG\.$"
    ) as told:
        asyncio.run(Cluster.connect(file))
    assert "secret" not in str(told.value)


async def _changes(found: AsyncIterator[Object], count: int) -> list[tuple[str, str]]:
    told = []
    async with asyncio.timeout(10):
        async for event in found:
            told.append((event["type"], event["object"]["metadata"]["name"]))
            if len(told) == count:
                break
    return told


def test_a_watch_tells_what_changes_from_now_on_and_ends_cleanly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 3)
    large = {"data": {"key": "x" * 900_000}}

    async def job(cluster: Cluster) -> None:
        await cluster.create(place.maps(), named("before", app="x"))
        begun = time.monotonic()
        watch = cluster.watch(place.maps(), {"app": "x"})
        pending = asyncio.ensure_future(_changes(watch, 4))
        await asyncio.sleep(0.7)
        await cluster.create(place.maps(), named("other", app="y"))
        await cluster.create(place.maps(), named("a", app="x"))
        await cluster.patch(place.maps("a"), large, MERGE)
        await cluster.patch(place.maps("before"), {"metadata": {"labels": {"app": "y"}}}, MERGE)
        await asyncio.to_thread(
            place.control_plane.kubectl, "delete", "configmap", "a", f"--namespace={place.namespace}"
        )
        assert await pending == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "before"), ("DELETED", "a")]
        assert [event async for event in watch] == [], "the server ends it"
        assert 2.5 < time.monotonic() - begun < 8

    place.do(job)


def test_more_watches_than_the_clients_pool_holds_leave_room_for_other_calls(place: Place) -> None:
    async def job(cluster: Cluster) -> None:
        watches = [cluster.watch(place.maps(), {"app": str(number)}) for number in range(120)]
        pending = [asyncio.ensure_future(anext(watch)) for watch in watches]
        await asyncio.sleep(2)
        assert cluster.calls == 240, "each lists, and then watches"
        assert not any(one.done() for one in pending)
        begun = time.monotonic()
        assert await cluster.list(place.maps(), {"app": "x"}) == []
        assert time.monotonic() - begun < 3
        for one in pending:
            one.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    place.do(job)


def test_a_resize_is_ours_to_see_afterwards(place: Place) -> None:
    pods = path("v1", "pods", place.namespace)

    async def job(cluster: Cluster) -> None:
        assert await cluster.create(pods, POD)
        pod = await cluster.get(f"{pods}/w")
        assert not inventory.workloads([workload()], [owned(pod)])[0].pods[0].resized, "to create a pod is no resize"
        memory = {"requests": {"memory": "150Mi"}, "limits": {"memory": "300Mi"}}
        body = {
            "metadata": {"uid": pod["metadata"]["uid"]},
            "spec": {"containers": [{"name": "worker", "resources": memory}]},
        }
        with pytest.raises(Refused, match=r"422: .*pod updates may not change fields"):
            await cluster.patch(f"{pods}/w", body)
        await cluster.patch(path("v1", "pods", place.namespace, "w", "resize"), body)
        pod = await cluster.get(f"{pods}/w")
        assert pod["spec"]["containers"][0]["resources"] == memory
        ours = [entry for entry in pod["metadata"]["managedFields"] if entry.get("subresource") == "resize"]
        assert [entry["manager"] for entry in ours] == [inventory.FIELD_MANAGER]
        seen = inventory.workloads([workload()], [owned(pod)])[0].pods[0]
        assert seen.resized
        assert (seen.memory.request, seen.memory.limit) == (150 * 2**20, 300 * 2**20)
        stale = {**body, "metadata": {"uid": "another"}}
        with pytest.raises(Stale):
            await cluster.patch(path("v1", "pods", place.namespace, "w", "resize"), stale)

    place.do(job)


def workload() -> Object:
    """A worker Deployment, as read."""
    template = {"spec": POD["spec"]}
    labels = {"component": "worker"}
    return {
        "kind": "Deployment",
        "metadata": {"name": "w", "labels": labels},
        "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template},
    }


def owned(pod: Object) -> Object:
    """The pod as if a ReplicaSet of that Deployment had made it."""
    owner = {"kind": "ReplicaSet", "name": "w-abc", "controller": True}
    labels = {**pod["metadata"]["labels"], "pod-template-hash": "abc"}
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": [owner], "labels": labels}}
