"""The autoscalers of a namespace, read now and then: they seldom change, and a usual turn costs no more for them."""

import asyncio
import logging
from datetime import datetime, timedelta

from airflow_tuner import autoscaler
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.cluster import Cluster, NotFound, Object, path
from airflow_tuner.errors import Refused, TunerError

EVERY = timedelta(minutes=5)
"""Between two looks at a namespace."""

PATIENCE = 2.0
"""Seconds that a turn waits for them: the answer to a kill comes after."""

KINDS = (
    ("autoscaling/v2", "horizontalpodautoscalers"),
    ("autoscaling.k8s.io/v1", "verticalpodautoscalers"),
    ("keda.sh/v1alpha1", "scaledobjects"),
)

log = logging.getLogger("airflow_tuner")


class Autoscalers:
    """What is known of the autoscalers of each namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[str, tuple[datetime, tuple[Autoscaler, ...]]] = {}
        self._lists: dict[tuple[str, str], list[Object]] = {}
        self._told: set[tuple[str, str]] = set()

    async def of(self, namespace: str, now: datetime) -> tuple[Autoscaler, ...]:
        """The autoscalers as they were at most five minutes ago. It never raises: what cannot be read is as it was."""
        at, known = self._known.get(namespace, (None, ()))
        if at is not None and timedelta() <= now - at < EVERY:
            return known
        missed: set[str] = set()
        try:
            # The first look of all may take what the API client takes: nothing is known that could do instead.
            async with asyncio.timeout(PATIENCE if at is not None else None):
                found = await asyncio.gather(*(self._list(group, plural, namespace, missed) for group, plural in KINDS))
        except TimeoutError:
            log.info("namespace %s: its autoscalers are taken to be as they were: no answer in time", namespace)
            return known
        read = autoscaler.read(*found)
        # Where the API server did not answer, it is asked again at once.
        self._known[namespace] = (at or now - EVERY) if missed else now, read
        return read

    async def _list(self, group: str, plural: str, namespace: str, missed: set[str]) -> list[Object]:
        """All of one kind; none where there is no such kind. What cannot be read now is as it was.

        `missed` gets the kinds that the API server did not answer about.
        """
        key = (namespace, plural)
        try:
            self._lists[key] = await self._cluster.list(path(group, plural, namespace), {})
        except NotFound:
            self._lists.pop(key, None)
        except TunerError as error:
            if key not in self._told:
                log.info("namespace %s: %s cannot be read: %s", namespace, plural, error)
            self._told.add(key)
            if not isinstance(error, Refused):
                missed.add(plural)
        else:
            self._told.discard(key)
        return self._lists.get(key, [])
