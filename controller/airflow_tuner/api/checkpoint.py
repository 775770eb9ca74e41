"""What the operator must not forget."""

from typing import Annotated

from pydantic import Field

from airflow_tuner.api.fields import Model, keyed
from airflow_tuner.api.status import Change, Target, Tuned


class Peaks(Model):
    """The most memory or CPU of each hour of one target, or the most tasks of one group of workers, for nine weeks."""

    target: Annotated[str, Field(max_length=336)]
    """Which target; with the word tasks after it, the tasks that ran or waited at once; with cpu, its CPU."""
    packed: Annotated[str, Field(max_length=16384, pattern=r"^[0-9]+:[A-Za-z0-9+/=]*$")]
    """The first hour, counted from 1970, and the peaks in MiB, tasks or thousandths of a core: little-endian 32-bit
    numbers, deflated, in base64."""


class Remembered(Model):
    """The part of a policy's status that cannot be seen again in the cluster."""

    policy: Annotated[str, Field(max_length=64)] = ""
    """UID of the policy; the memory of a deleted policy of the same name does not count."""
    airflow_version: Annotated[str, Field(max_length=8)] = ""
    """Major version of this Airflow, as it was last known."""
    targets: Annotated[list[Target], Field(max_length=80, json_schema_extra=keyed("name"))] = []
    """The workloads, with what they should have, why, and which kills were answered."""
    tuned: Annotated[list[Tuned], Field(max_length=80, json_schema_extra=keyed("target"))] = []
    """What new pods get."""
    history: Annotated[list[Change], Field(max_length=10)] = []
    """The last ten changes, newest first."""
    peaks: Annotated[list[Peaks], Field(max_length=240, json_schema_extra=keyed("target"))] = []
    """Memory, tasks and CPU of past hours, which the metrics source may not keep as long."""
