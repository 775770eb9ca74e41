"""Quotas and limit ranges of a namespace, and the nodes its pods are on, read now and then.

What may not be read, or is not answered in time, is left out or as it was: it never stops a turn.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_tuner import room
from airflow_tuner.cluster import Cluster, Object, path
from airflow_tuner.errors import Refused, TunerError
from airflow_tuner.model import Workload
from airflow_tuner.room import Held, Node, Room

EVERY = timedelta(seconds=60)
"""Between two looks at a namespace's quotas, where nothing was changed in between."""

NODES_EVERY = timedelta(minutes=5)
"""Between two looks at nodes and the pods on them: each costs a list of these pods."""

PATIENCE = 2.0
"""Seconds that a turn waits for them: the answer to a kill comes after."""

AT_ONCE = 8
"""Nodes whose pods are listed at once."""

log = logging.getLogger("airflow_tuner")


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer of the API server, and when it came."""

    at: datetime
    items: list[Object]


class Rooms:
    """What is known of the room in each namespace and on each node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lists: dict[str, _Known] = {}
        self._held: dict[str, tuple[datetime, Mapping[str, Held] | None]] = {}
        self._told: set[str] = set()
        self._few = asyncio.Semaphore(AT_ONCE)

    def changed(self, namespace: str) -> None:
        """Memory was changed there: what its quotas count is no longer as it was."""
        self._lists.pop(path("v1", "resourcequotas", namespace), None)

    async def of(self, namespace: str, workloads: Iterable[Workload], now: datetime) -> Room:
        """What is known of the room there. It never raises."""
        pods = {pod.uid: (workload.container, pod.node) for workload in workloads for pod in workload.pods}
        names = sorted({node for _, node in pods.values() if node})
        quotas, ranges, nodes = (
            path("v1", "resourcequotas", namespace),
            path("v1", "limitranges", namespace),
            path("v1", "nodes"),
        )
        try:
            async with asyncio.timeout(PATIENCE if nodes in self._lists else None):
                await asyncio.gather(
                    self._read(quotas, now, EVERY), self._read(ranges, now, EVERY), self._read_nodes(nodes, names, now)
                )
        except TimeoutError:
            log.info("namespace %s: its room is taken to be as it was: no answer in time", namespace)
        sizes, shut = room.allocatable(self._items(nodes)), room.closed(self._items(nodes))
        held = {name: self._held[name][1] for name in names if name in self._held and name in sizes}
        known = {name: found for name, found in held.items() if found is not None}
        daemons = [sum(held.beside("") for held in found.values() if held.daemon) for found in known.values()]
        open_ = [size for name, size in sizes.items() if name not in shut]
        return Room(
            quotas=room.quotas(self._items(quotas)),
            ranges=room.ranges(self._items(ranges)),
            nodes=tuple(
                Node(name, sizes[name], sum(one.beside(pods.get(uid, ("", ""))[0]) for uid, one in found.items()))
                for name, found in known.items()
            ),
            largest=max(open_) - min(daemons, default=0) if open_ else None,
        )

    def _items(self, where: str) -> list[Object]:
        found = self._lists.get(where)
        return [] if found is None else found.items

    async def _read_nodes(self, where: str, names: Iterable[str], now: datetime) -> None:
        """The nodes, and what is on those of these names."""
        await self._read(where, now, NODES_EVERY)
        there = room.allocatable(self._items(where))
        self._held = {name: found for name, found in self._held.items() if name in there}
        if not there:
            return
        await asyncio.gather(*(self._read_pods(name, now) for name in names))

    async def _read_pods(self, node: str, now: datetime) -> None:
        last = self._held.get(node)
        if last is not None and timedelta() <= now - last[0] < NODES_EVERY:
            return
        async with self._few:
            found = await self._answer(path("v1", "pods"), {"spec.nodeName": node})
        if found is not None:
            # Only what counts is kept: a node has a hundred pods.
            held = {pod["metadata"]["uid"]: room.held(pod) for pod in found}
            # A pod of ours is there at least: where none is shown, they may not be seen.
            self._held[node] = now, {uid: one for uid, one in held.items() if one is not None} or None

    async def _read(self, where: str, now: datetime, every: timedelta) -> None:
        last = self._lists.get(where)
        if last is not None and timedelta() <= now - last.at < every:
            return
        found = await self._answer(where)
        if found is not None:
            self._lists[where] = _Known(now, found)

    async def _answer(self, where: str, fields: Mapping[str, str] | None = None) -> list[Object] | None:
        """A list; empty where it may not be read, and `None` where there is no answer now."""
        try:
            found = await self._cluster.list(where, {}, fields)
        except TunerError as error:
            if where not in self._told:
                log.info("The room for memory that %s would tell is not looked at: %s", where.rpartition("/")[2], error)
            self._told.add(where)
            return [] if isinstance(error, Refused) else None
        self._told.discard(where)
        return found
