"""What runs Airflow's tasks: Celery workers, a pod for each, or the scheduler itself; and how that is known. Pure.

`core.executor` is one name, or a list of them (Airflow 2.10 on), each maybe with a path of modules and an alias before
it, or such lists for teams (Airflow 3). Airflow 2 has classes that are two at once, such as CeleryKubernetesExecutor.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from airflow_tuner.sentence import short

OPTION = "AIRFLOW__CORE__EXECUTOR"
"""The variable that wins over airflow.cfg."""

FROM_ELSEWHERE = (f"{OPTION}_CMD", f"{OPTION}_SECRET")
"""So do these: what they come to is not known."""

LABEL = "executor"
"""The official chart's label on the scheduler's Deployment or StatefulSet: its value `executor`."""

CELERY, KUBERNETES, LOCAL, SEQUENTIAL = "Celery", "Kubernetes", "Local", "Sequential"
_KINDS = (CELERY, KUBERNETES, LOCAL, SEQUENTIAL)
"""Words in the names of classes: also one's own MyCeleryExecutor runs Celery's tasks."""

_PATHS = (
    "airflow.providers.celery.executors.celery_executor.CeleryExecutor",
    "airflow.providers.celery.executors.celery_kubernetes_executor.CeleryKubernetesExecutor",
    "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor",
    "airflow.providers.cncf.kubernetes.executors.local_kubernetes_executor.LocalKubernetesExecutor",
)
"""Those that are longer than a label's value."""

_CUT = 59
"""Characters from which a label's value may be cut: the chart takes 63, and marks at their end away."""

_LONGEST = 512
"""Most characters of an option that is read; nobody has so many executors."""

_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Executors:
    """What runs the tasks. Nothing is said where it is not known: it is taken for Celery then."""

    names: tuple[str, ...] = ()
    """Names of classes, the default one first."""
    source: str = ""
    """Where it is known from."""

    def __bool__(self) -> bool:
        """It is known."""
        return bool(self.names)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What they are, each once; one that is none of the known is its own kind."""
        found = [kind for name in self.names for kind in ([one for one in _KINDS if one in name] or [name])]
        return tuple(dict.fromkeys(found))

    @property
    def celery(self) -> bool:
        """Celery workers may run tasks."""
        return not self.names or CELERY in self.kinds

    @property
    def several(self) -> bool:
        """What is said of all tasks is not said of one executor's."""
        return len(self.kinds) > 1

    @property
    def local(self) -> bool:
        """Tasks run in the scheduler's container."""
        return bool({LOCAL, SEQUENTIAL} & {*self.kinds})

    @property
    def kubernetes(self) -> bool:
        """Tasks have pods of their own."""
        return KUBERNETES in self.kinds

    @property
    def told(self) -> str:
        """Their names."""
        return " and ".join(short(name) for name in self.names)

    @property
    def without_celery(self) -> str:
        """That there are no Celery workers, as a sentence."""
        return f"This Airflow runs its tasks with the {self.told} ({self.source}), and not on Celery workers."


UNKNOWN = Executors()


def option(text: str, source: str) -> Executors:
    """What `core.executor` says; unknown where it cannot be understood."""
    words = [word.rpartition("=")[2] for team in text.split(";") for word in team.split(",") if word.strip()]
    names = [word.rpartition(":")[2].rpartition(".")[2].strip() for word in words]
    if len(text) > _LONGEST or not names or not all(_NAME.fullmatch(name) for name in names):
        return UNKNOWN
    return Executors(tuple(dict.fromkeys(names)), source)


def label(text: str, source: str) -> Executors:
    """What the chart's label says: it has hyphens for the commas of a list, and 63 characters at most."""
    words = text.split("-")
    if len(text) >= _CUT and not words[-1].endswith("Executor"):
        whole = {path for path in _PATHS if path.startswith(words[-1])}
        if len(whole) != 1:
            return UNKNOWN
        words[-1] = whole.pop()
    return option(",".join(words), source)


def gauges(labels: Iterable[str]) -> Executors:
    """What Airflow 3 says: it tells the executors apart in the label of its gauges."""
    names = tuple(sorted({name for name in labels if name}))
    return Executors(names, "label executor of airflow_executor_open_slots") if names else UNKNOWN
