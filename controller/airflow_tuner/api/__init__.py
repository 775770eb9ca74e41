"""TuningPolicy: what a user writes (`Spec`) and what the operator answers (`Status`); TuningCheckpoint: its memory.

The only place that knows the names of the resources' fields. The custom resource definitions and their texts for
`kubectl explain` are generated from here (`airflow_tuner.crd`).
"""

from airflow_tuner.api.checkpoint import Peaks, Remembered
from airflow_tuner.api.fields import (
    CHECKPOINT_KIND,
    CHECKPOINT_PLURAL,
    CHECKPOINT_SINGULAR,
    GROUP,
    KIND,
    PAUSED,
    PLURAL,
    SHORT_NAME,
    SINGULAR,
    VERSION,
    Model,
)
from airflow_tuner.api.spec import (
    Component,
    Concurrency,
    Cpu,
    DagProcessor,
    Memory,
    Metrics,
    Mode,
    Naming,
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
    Moments,
    Sizes,
    Status,
    Target,
    TaskSize,
    Tuned,
    Values,
)

__all__ = [
    "CHECKPOINT_KIND",
    "CHECKPOINT_PLURAL",
    "CHECKPOINT_SINGULAR",
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
    "Cpu",
    "DagProcessor",
    "EnvName",
    "EnvVar",
    "FindingStatus",
    "Memory",
    "Metrics",
    "Mode",
    "Model",
    "Moments",
    "Naming",
    "Parsing",
    "Peaks",
    "Remembered",
    "Restarts",
    "SecretKeyRef",
    "Sizes",
    "Spec",
    "Status",
    "Target",
    "TaskSize",
    "Tuned",
    "TuningCheckpoint",
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


class TuningCheckpoint(Model):
    """The operator's own memory of one TuningPolicy, of the same name. Written by the operator; nothing to edit."""

    memory: Remembered
    """What it must not forget. Where it is lost, the policy's status and the pods say it again."""
