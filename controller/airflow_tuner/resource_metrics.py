"""What pods use at this moment, from `metrics.k8s.io` (metrics-server): all there is where no Prometheus knows them.

It is no more than that: the working set of a moment and CPU averaged over some seconds, page cache not told apart, no
peak, no kill, no yesterday.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from airflow_tuner import quantity
from airflow_tuner.cluster import Cluster, NotFound, path
from airflow_tuner.errors import TunerError, Unavailable
from airflow_tuner.inventory import moment
from airflow_tuner.model import Pod, Sample, Usage, Workload

GROUP = "metrics.k8s.io/v1beta1"

PATIENCE = 2.0
"""Seconds that a turn waits for it. Another server answers than the API server, and it may be broken."""

UNSEEN = "kills of single processes, peaks, leaks and page cache are not seen"


@dataclass(frozen=True, slots=True)
class Current:
    """What is in use now, by pod and container; `problem` says why nothing is known."""

    usages: Mapping[tuple[str, str], Usage] = field(default_factory=dict)
    problem: str = ""

    def of(self, pod: Pod, container: str, now: datetime, limit: timedelta) -> Usage | None:
        """The usage of a living container; `None` where nothing fresh is known of it."""
        found = self.usages.get((pod.name, container))
        sample = found and (found.working_set or found.cpu)
        if not found or not sample or pod.started is None or sample.at < pod.started or now - sample.at > limit:
            return None
        return found


async def ask(cluster: Cluster, namespace: str, labels: Mapping[str, str], patience: float = PATIENCE) -> Current:
    """One question for all pods with these labels. It never raises, and never takes longer than `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            items = await cluster.list(path(GROUP, "pods", namespace), labels)
    except TimeoutError:
        return Current(problem=f"it did not answer within {patience:g} s")
    except NotFound:
        return Current(problem="this cluster does not have that API (metrics-server serves it)")
    except Unavailable:
        return Current(problem="the server behind that API does not answer")
    except TunerError:
        return Current(problem="the operator may not read it (list of pods in that group)")
    except (AttributeError, TypeError):
        return Current(problem="its answer has another form than that API's")
    return Current(read(items))


def read(items: Iterable[Any]) -> dict[tuple[str, str], Usage]:
    """PodMetrics as usages. What has another form than is documented is left out, as it comes from a foreign server."""
    found: dict[tuple[str, str], Usage] = {}
    for item in items:
        try:
            at = moment(item["timestamp"])
            for container in item["containers"]:
                used = container["usage"]
                memory, cpu = quantity.parse(used["memory"]), _cores(str(used["cpu"]))
                found[item["metadata"]["name"], container["name"]] = Usage(
                    working_set=Sample(memory, at, momentary=True), cpu=Sample(cpu, at, momentary=True)
                )
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def filled(
    workloads: Iterable[Workload], current: Current, now: datetime, limit: timedelta
) -> tuple[tuple[Workload, ...], int]:
    """The workloads with what is in use now, and of how many pods that is known."""
    known, done = 0, []
    for workload in workloads:
        pods = []
        for pod in workload.pods:
            usage = current.of(pod, workload.container, now, limit)
            known += usage is not None
            pods.append(pod if usage is None else replace(pod, usage=usage))
        done.append(replace(workload, pods=tuple(pods)))
    return tuple(done), known


def _cores(text: str) -> float:
    """Cores; an idle container has `0`, which is no quantity of a limit."""
    return 0.0 if text.strip("nmu") == "0" else quantity.cores(text)
