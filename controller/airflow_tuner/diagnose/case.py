"""What a check may look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from airflow_tuner import api, decide
from airflow_tuner.model import Observation, Workload


@dataclass(frozen=True)
class Case:
    """One look at one Airflow, with its policy and what is remembered of it."""

    spec: api.Spec
    seen: Observation
    prior: api.Status

    def covered(self) -> Iterator[Workload]:
        """The workloads that the policy is about."""
        for workload in self.seen.workloads:
            if decide.bounds_of(self.spec, workload.component, workload.target, workload.name):
                yield workload

    def told_before(self, reason: str, target: str) -> bool:
        """Whether the last turn had this finding."""
        return any((item.reason, item.target) == (reason, target) for item in self.prior.findings)

    @cached_property
    def items(self) -> tuple[decide.Item, ...]:
        """The targets of the policy, with their past. Many checks ask: each is assessed once."""
        bounded = (
            (workload, decide.bounds_of(self.spec, workload.component, workload.target, workload.name))
            for workload in self.seen.workloads
        )
        return tuple(
            decide.item_of(self.spec, bounds, workload, self.seen, self.prior)
            for workload, bounds in bounded
            if bounds is not None
        )


def is_based_on(entry: api.Tuned, workload: Workload) -> bool:
    """Whether what was tuned belongs to the template as it is now."""
    return entry.baseline == decide.baseline(workload)
