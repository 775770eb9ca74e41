"""The running operator: kopf tells which policies there are; each has one task of ours that takes turns.

No kopf daemon, timer or finalizer: a policy can be deleted at any time, also while no operator runs.
"""

import asyncio
import logging
import signal
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import kopf

from airflow_tuner import api, inventory
from airflow_tuner.airflow_api import AirflowApi
from airflow_tuner.autoscalers import Autoscalers
from airflow_tuner.brokers import Brokers
from airflow_tuner.budget import Ledger
from airflow_tuner.cluster import Cluster, NotFound, path, policy_path
from airflow_tuner.errors import Misconfigured, TunerError, Unavailable
from airflow_tuner.exporter import Exporter
from airflow_tuner.lease import Lease
from airflow_tuner.observe import process_kills
from airflow_tuner.policies import status
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.reconcile import Turn
from airflow_tuner.recorder import Recorder
from airflow_tuner.rooms import Rooms
from airflow_tuner.settings import Settings

PULSE = 3.0
"""Seconds between looks at the counts of killed processes, which no Kubernetes object shows."""
AGAIN = 1.0
"""Seconds before a broken watch is asked for anew."""
AGAIN_AT_MOST = 16.0
"""The same where it breaks again and again: each time costs a turn."""

Object = dict[str, Any]

log = logging.getLogger("airflow_tuner")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Without the API server nothing is held and nothing done, until it is back."""
    async with await Cluster.connect(settings.kubeconfig) as cluster:
        exporter = Exporter()
        if settings.metrics_port:
            exporter.serve(settings.metrics_port)
        lease = Lease(cluster, settings.lease_namespace, settings.identity)
        stopped = asyncio.create_task(stop.wait())
        while not stop.is_set():
            waiting = asyncio.create_task(lease.acquire())
            await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                break
            waiting.result()
            log.info("%s is the operator that acts", settings.identity)
            try:
                await _act(cluster, settings, lease, exporter, stop)
            except Misconfigured:
                raise
            except TunerError as error:
                # Also a refusal: an API server that has just started refuses everything for a moment.
                log.warning("%s", error)
                await asyncio.sleep(AGAIN)
        stopped.cancel()


async def _act(cluster: Cluster, settings: Settings, lease: Lease, exporter: Exporter, stop: asyncio.Event) -> None:
    """Take turns for all policies while the Lease is ours."""
    policies = Policies(cluster, settings, exporter)
    policies.ledger.recall((status(found).history for found in await _all(cluster, settings)), datetime.now(UTC))
    held = asyncio.create_task(lease.hold())
    stopped = asyncio.create_task(stop.wait())
    watched = asyncio.create_task(_kopf(policies, cluster, settings, stop))
    tasks = {held, stopped, watched}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if held.done():
            log.error(
                "the lease is lost: nothing is done until it is ours again, so that two operators never act at once"
            )
        elif watched.done() and not stop.is_set():
            msg = f"The watch of policies ended: {watched.exception() or 'kopf stopped'}"
            raise Unavailable(msg)
    finally:
        # The next operator may begin as soon as our turns have ended: kopf takes seconds to stop, and only watches.
        await policies.stop()
        exporter.clear()
        await _ended(held)
        await lease.release()
        await _ended(stopped, watched)


async def _ended(*tasks: asyncio.Task[None] | asyncio.Task[bool]) -> None:
    """End these tasks, and wait until they are."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Policies:
    """The policies that exist, and the task of each."""

    def __init__(self, cluster: Cluster, settings: Settings, exporter: Exporter) -> None:
        self.cluster = cluster
        self.exporter = exporter
        self.sources = {name: Prometheus(name, source) for name, source in settings.sources.items()}
        self.apis = {name: AirflowApi(name, api) for name, api in settings.apis.items()}
        self.brokers = Brokers(cluster)
        self.autoscalers = Autoscalers(cluster)
        self.rooms = Rooms(cluster)
        self.ledger = Ledger(settings.changes_per_hour)
        self.recorder = Recorder(cluster, settings.identity)
        self._tasks: dict[tuple[str, str], tuple[int, asyncio.Event, asyncio.Task[None]]] = {}
        self._stopped = False

    def noticed(self, namespace: str, name: str, generation: int, marks: str, *, gone: bool) -> None:
        """Begin, wake or end the task of a policy. `marks`: the annotations we read."""
        if self._stopped:
            return
        key = (namespace, name)
        seen = hash((generation, marks))
        known = self._tasks.get(key)
        if gone:
            if known is not None:
                self._tasks.pop(key)[2].cancel()
            self.exporter.forget(namespace, name)
            return
        if known is None or known[2].done():
            wake = asyncio.Event()
            self._tasks[key] = (seen, wake, asyncio.create_task(self._take_turns(namespace, name, wake)))
        elif known[0] != seen:
            self._tasks[key] = (seen, known[1], known[2])
            known[1].set()

    async def stop(self) -> None:
        """End all tasks, for good."""
        self._stopped = True
        tasks = [task for _, _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.brokers.close()

    async def _take_turns(self, namespace: str, name: str, wake: asyncio.Event) -> None:
        while True:
            try:
                await self._turns(namespace, name, wake)
            except Exception:
                # A bug beside the turns must not end the loop either.
                log.exception("policy %s/%s: begins anew", namespace, name)
                await asyncio.sleep(AGAIN)

    async def _turns(self, namespace: str, name: str, wake: asyncio.Event) -> None:
        turn = Turn(
            self.cluster,
            self.recorder,
            self.sources,
            self.brokers,
            namespace,
            name,
            lambda: datetime.now(UTC),
            self.autoscalers,
            self.rooms,
            self.exporter,
            self.ledger,
            apis=self.apis,
        )
        async with asyncio.TaskGroup() as group:
            watches: dict[str, asyncio.Task[None]] = {}
            while True:
                wake.clear()
                delay = await turn.attempt()
                if turn.spec is not None:
                    labels = turn.spec.airflow.labels
                    wanted = str(sorted(labels.items()))
                    if wanted not in watches:
                        for task in watches.values():
                            task.cancel()
                        watches = {wanted: group.create_task(_watch_kills(self.cluster, namespace, labels, wake))}
                await self._pause(turn, delay.total_seconds(), wake)

    async def _pause(self, turn: Turn, delay: float, wake: asyncio.Event) -> None:
        """Sleep until the delay is over, somebody wakes us, or a process was killed somewhere."""
        loop = asyncio.get_running_loop()
        until = loop.time() + delay
        source = None if turn.spec is None else self.sources.get(turn.spec.metrics.source)
        while (left := until - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, PULSE)):
                    await wake.wait()
                    return
            if source is None or turn.spec is None:
                continue
            with suppress(TunerError):
                if turn.news(await process_kills(source, turn.spec, turn.namespace)):
                    return


async def _watch_kills(cluster: Cluster, namespace: str, labels: dict[str, str], wake: asyncio.Event) -> None:
    """Wake the policy's task when a pod of its Airflow is killed for memory, is born, or changes its resources."""
    known: dict[str, object] = {}
    told, pause = "", AGAIN
    while True:
        begun = asyncio.get_running_loop().time()
        try:
            async for event in cluster.watch(path("v1", "pods", namespace), labels):
                pod = event["object"]
                mark = _mark(pod)
                if event["type"] == "DELETED":
                    known.pop(pod["metadata"]["uid"], None)
                elif known.get(pod["metadata"]["uid"]) != mark:
                    known[pod["metadata"]["uid"]] = mark
                    wake.set()
        except TunerError as error:
            if str(error) != told:
                log.info("%s", error)
            told = str(error)
        lasted = asyncio.get_running_loop().time() - begun > AGAIN_AT_MOST
        pause = AGAIN if lasted else min(2 * pause, AGAIN_AT_MOST)
        await asyncio.sleep(pause)
        # The next watch begins with what is new then: what came in between is for a turn to find.
        wake.set()


def _mark(pod: dict[str, Any]) -> object:
    """What of a pod is worth a turn; `None`: nothing. Pods of the KubernetesExecutor come and go with every task."""
    if inventory.is_task(pod):
        return None
    states = (pod.get("status") or {}).get("containerStatuses") or []
    return [
        (
            state["name"],
            state.get("restartCount"),
            ((state.get("state") or {}).get("terminated") or {}).get("reason") == inventory.OUT_OF_MEMORY,
            state.get("resources"),
        )
        for state in states
    ]


async def _all(cluster: Cluster, settings: Settings) -> list[Object]:
    """All policies there are.

    Without the definition, kopf would start without the resource and never notice its coming.
    """
    try:
        found = [await cluster.list(policy_path(namespace), {}) for namespace in settings.namespaces or ("",)]
        return [policy for some in found for policy in some]
    except NotFound as error:
        msg = "The cluster has no TuningPolicy resource: install it with the chart (crds.enabled) or from crds/."
        raise Misconfigured(msg) from error


async def _kopf(policies: Policies, cluster: Cluster, settings: Settings, stop: asyncio.Event) -> None:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: object) -> kopf.ConnectionInfo:
        return _connection(cluster)

    @kopf.on.event(api.GROUP, api.VERSION, api.PLURAL, registry=registry)
    async def noticed(event: kopf.RawEvent, namespace: str | None, name: str | None, **_: object) -> None:
        metadata: dict[str, Any] = dict(event["object"].get("metadata", {}))
        marks = str((metadata.get("annotations") or {}).get(api.PAUSED))
        gone = event["type"] == "DELETED"
        policies.noticed(namespace or "", name or "", metadata.get("generation", 0), marks, gone=gone)

    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=_kopf_settings(),
        standalone=True,
        # Else kopf asks the system for the user's name, which a container's user need not have.
        identity=cast("Any", settings.identity),
        clusterwide=not settings.namespaces,
        namespaces=list(settings.namespaces),
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz" if settings.health_port else None,
    )
    # kopf has taken the signals for itself: it would stop, and begin anew, and the process would go on.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await kopf.run_tasks(tasks, ignored=ours)


def _connection(cluster: Cluster) -> kopf.ConnectionInfo:
    found = cluster.settings
    scheme, _, token = str((found.api_key or {}).get("BearerToken", "")).rpartition(" ")
    return kopf.ConnectionInfo(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        insecure=not found.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
    )


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = (1, 2, 5)
    settings.watching.connect_timeout = 10
    # Else kopf kills the whole process this long after it was stopped, as it is when the Lease is lost.
    settings.process.ultimate_exiting_timeout = None
    return settings
