"""A Lease: only one operator acts at a time.

The holder renews it; who cannot renew it in time stops. Times are compared on one's own monotonic clock only (a Lease
that has not changed for its duration, as seen from here, is free), so clocks need not agree, and may jump.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_tuner.cluster import Cluster, NotFound, path
from airflow_tuner.errors import Stale, TunerError

NAME = "airflow-tuner"
API = "coordination.k8s.io/v1"

log = logging.getLogger("airflow_tuner")


@dataclass(frozen=True, slots=True)
class Terms:
    """The times of a Lease, in seconds; as in client-go."""

    duration: float = 15.0
    """After the last renewal, from which another may take over."""
    deadline: float = 10.0
    """Without a renewal, after which the holder stops: before anyone else may begin."""
    renew: float = 5.0
    """Between renewals."""
    retry: float = 2.0
    """Between looks at a Lease that another holds."""
    again: float = 1.0
    """After a renewal that failed."""


def _now() -> datetime:
    return datetime.now(UTC)


class Lease:
    """The operator's Lease in one namespace. `clock` is what people read in it; nothing is decided by it."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        identity: str,
        terms: Terms | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._identity = identity
        self._terms = terms or Terms()
        self._clock = clock
        self._renewed = 0.0
        self._seen: tuple[str, float] = ("", 0.0)

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        told = ""
        while True:
            try:
                holder = await self._try()
            except TunerError as error:
                # Also a refusal: an API server that has just started knows no rights for a moment.
                holder, waits = "", f"waiting for the lease: {error}"
            else:
                waits = f"waiting: {holder} is the operator that acts"
            if holder == self._identity:
                return
            if waits != told:
                log.info("%s", waits)
                told = waits
            await asyncio.sleep(self._terms.retry)

    async def hold(self) -> None:
        """Renew it until it is lost; then return, before anyone else may begin."""
        pause = self._terms.renew
        while (left := self._left()) > 0:
            await asyncio.sleep(min(pause, left))
            try:
                # A call that hangs must leave time for another one.
                async with asyncio.timeout(min(self._left(), self._terms.deadline / 2)):
                    if await self._try() != self._identity:
                        return
                pause = self._terms.renew
            except (TunerError, TimeoutError) as error:
                log.warning("the lease could not be renewed: %s", str(error) or "no answer in time")
                pause = self._terms.again

    def _left(self) -> float:
        """Seconds until the holder must stop."""
        return self._renewed + self._terms.deadline - time.monotonic()

    async def release(self) -> None:
        """Give it up, so that the next one need not wait."""
        try:
            async with asyncio.timeout(self._terms.deadline / 2):
                while True:
                    lease = await self._cluster.get(self._where())
                    spec = lease.get("spec") or {}
                    if spec.get("holderIdentity") != self._identity:
                        return
                    # `Stale`: a renewal that we had broken off arrived all the same.
                    with suppress(Stale):
                        await self._cluster.replace(self._where(), {**lease, "spec": {**spec, "holderIdentity": ""}})
                        return
        except (TunerError, TimeoutError) as error:
            log.info("the lease was not given up: %s", str(error) or "no answer in time")

    async def _try(self) -> str:
        """Take or renew it if we may; who holds it then."""
        now = self._clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        seconds = math.ceil(self._terms.duration)
        mine = {"holderIdentity": self._identity, "leaseDurationSeconds": seconds, "renewTime": now}
        # Counted from before the write: others count from when they see it.
        begun = time.monotonic()
        try:
            lease = await self._cluster.get(self._where())
        except NotFound:
            body = {
                "apiVersion": API,
                "kind": "Lease",
                "metadata": {"name": NAME},
                "spec": {**mine, "acquireTime": now},
            }
            if not await self._cluster.create(path(API, "leases", self._namespace), body):
                return "another operator"
            self._renewed = begun
            return self._identity
        spec: dict[str, Any] = lease.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, time.monotonic())
        if holder not in {"", self._identity} and time.monotonic() - self._seen[1] < self._terms.duration:
            return holder
        if holder != self._identity:
            mine["acquireTime"] = now
        await self._cluster.replace(self._where(), {**lease, "spec": {**spec, **mine}})
        self._renewed = begun
        return self._identity

    def _where(self) -> str:
        return path(API, "leases", self._namespace, NAME)
