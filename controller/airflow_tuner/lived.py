"""A time that had the operator in it, noted for a report: what it set is held against what the user had set. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from airflow_tuner import api, chronicle
from airflow_tuner.chronicle import Chronicle
from airflow_tuner.counterfactual import Kill
from airflow_tuner.model import Change, Finding, Observation

AS_SET = "The user's own values are those of the templates; the use is that of the world with the operator in it."
"""What such a report holds against what, for its reader."""


@dataclass(slots=True)
class Lived:
    """One such time, from look to look."""

    spec: api.Spec
    into: Chronicle
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By pod the last death, and processes that were killed in its container."""

    def note(self, seen: Observation, changes: Iterable[Change], findings: Iterable[Finding]) -> None:
        """One more look; the user's own values are those of the templates."""
        sizes = {
            pod.name: pod.usage.anonymous.value for item in seen.workloads for pod in item.pods if pod.usage.anonymous
        }
        looks = chronicle.looks(self.spec, _as_set(seen), seen, sizes, seen)
        self.into.note(seen.at, looks, changes, findings, [*self._kills(seen)])

    def _kills(self, seen: Observation) -> Iterator[Kill]:
        for item in seen.workloads:
            for pod in item.pods:
                last, count = self._known.get(pod.uid, (0, 0))
                died = pod.death is not None and pod.death.number > last
                killed = round(pod.usage.process_kills.value) if pod.usage.process_kills is not None else count
                more = died + max(0, killed - (0 if died else count))
                if more:
                    yield Kill(seen.at, item.target, pod.name, more, pod.memory.limit, pod.memory.limit)
                self._known[pod.uid] = (pod.death.number if pod.death is not None else last, killed)


def _as_set(seen: Observation) -> Observation:
    """As the templates say it."""
    workloads = (
        replace(
            item,
            pods=tuple(
                replace(pod, memory=item.template, cpu=item.stated.cpu, slots=None, environment=item.environment)
                for pod in item.pods
            ),
        )
        for item in seen.workloads
    )
    return replace(seen, workloads=tuple(workloads))
