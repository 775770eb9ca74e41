"""TuningPolicy: what a user writes (`Spec`) and what the operator answers (`Status`).

The only place that knows the names of the resource's fields. The custom resource definition and its texts for
`kubectl explain` are generated from here (`airflow_tuner.crd`).
"""

from airflow_tuner.api.fields import GROUP, KIND, PAUSED, PLURAL, SHORT_NAME, SINGULAR, VERSION, Model
from airflow_tuner.api.spec import (
    Component,
    Concurrency,
    DagProcessor,
    Memory,
    Metrics,
    Mode,
    Parsing,
    Restarts,
    SecretKeyRef,
    Spec,
    Window,
    Worker,
)
from airflow_tuner.api.status import (
    Answered,
    Baseline,
    BaselineVar,
    Change,
    Condition,
    EnvName,
    EnvVar,
    FindingStatus,
    Sizes,
    Status,
    Target,
    Tuned,
    Values,
)

__all__ = [
    "GROUP",
    "KIND",
    "PAUSED",
    "PLURAL",
    "SHORT_NAME",
    "SINGULAR",
    "VERSION",
    "Answered",
    "Baseline",
    "BaselineVar",
    "Change",
    "Component",
    "Concurrency",
    "Condition",
    "DagProcessor",
    "EnvName",
    "EnvVar",
    "FindingStatus",
    "Memory",
    "Metrics",
    "Mode",
    "Model",
    "Parsing",
    "Restarts",
    "SecretKeyRef",
    "Sizes",
    "Spec",
    "Status",
    "Target",
    "Tuned",
    "TuningPolicy",
    "Values",
    "Window",
    "Worker",
]


class TuningPolicy(Model):
    """Keeps one Apache Airflow deployment out of memory trouble: tells what is wrong, adjusts within bounds."""

    spec: Spec
    """What the operator may do."""
    status: Status | None = None
    """What the operator saw, thinks and did."""
