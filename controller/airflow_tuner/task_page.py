"""What is recommended for tasks with pods of their own: as the status has it, and as texts to read and paste. Pure."""

from collections.abc import Iterator
from typing import Any

from airflow_tuner import api, task_sizes
from airflow_tuner.helm import of_tasks
from airflow_tuner.model import Memory, Observation
from airflow_tuner.quantity import mebibytes
from airflow_tuner.sentence import fitted, short
from airflow_tuner.task_runs import TaskName

NAMED = 20
"""Most tasks that a status, or a page, tells."""

BRIEF = 256


def fields(spec: api.Spec, seen: Observation, prior: api.Status) -> dict[str, Any]:
    """The fields of the status. While nothing is known of tasks, what was recommended stays."""
    found = task_sizes.advice(spec, seen)
    if found is None:
        kept = ("tasks", "tasks_summary", "pod_template") if spec.tasks is not None else ()
        return {name: getattr(prior, name) for name in kept}
    return {
        "tasks": [
            api.TaskSize(
                dag=fitted(size.name.dag, 320),
                task=fitted(size.name.task, 320),
                pods=size.runs.stem,
                reason=size.reason,
                present=None if size.before is None else _written(size.before),
                recommended=_written(size.after),
                why=fitted(size.why),
            )
            for size in found.changes[:NAMED]
        ],
        "tasks_summary": fitted(found.told, BRIEF),
        "pod_template": None if found.template is None else _written(found.template),
    }


def names(known: api.Status) -> dict[str, TaskName]:
    """The tasks that a status names, by what the names of their pods begin with."""
    return {item.pods: TaskName(item.dag, item.task) for item in known.tasks}


def _written(memory: Memory) -> api.Values:
    return api.Values.model_validate({kind: mebibytes(size) for kind, size in _sizes(memory)})


def _sizes(memory: Memory) -> Iterator[tuple[str, int]]:
    for kind, size in (("request", memory.request), ("limit", memory.limit)):
        if size is not None:
            yield kind, size


def override(memory: Memory) -> str:
    """Memory for one task, as an argument of its operator: Python to paste into the DAG."""
    told = ", ".join(f'{kind}s={{"memory": "{mebibytes(size)}"}}' for kind, size in _sizes(memory))
    return (
        'executor_config={"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[\n'
        f'    k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements({told})),\n'
        "]))}"
    )


def page(spec: api.Spec, seen: Observation) -> tuple[tuple[str, ...], str]:
    """Sentences for people, and what is to be pasted: `executor_config` of the tasks, values of the pod template."""
    found = task_sizes.advice(spec, seen)
    if found is None:
        why = "The policy names no tasks." if spec.tasks is None else "Nothing is known of pods of tasks."
        return (why,), ""
    shown = [(f"{short(size.name.task)} of {short(size.name.dag)}", size) for size in found.changes[:NAMED]]
    told = [found.told, *(f"{size.reason} {name}: {size.why}" for name, size in shown)]
    if len(found.changes) > NAMED:
        told.append(f"And {len(found.changes) - NAMED} more.")
    parts = ["from kubernetes.client import models as k8s"] if shown else []
    parts += [f"# task {name}\n{override(size.after)}" for name, size in shown]
    if found.template is not None:
        parts.append(of_tasks(found.template, seen))
    return tuple(told), "\n\n".join(parts)
