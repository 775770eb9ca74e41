"""Whose is it: is it ours to act, is there anything to act on, has somebody else acted."""

from collections.abc import Iterator

from airflow_tuner import api
from airflow_tuner.diagnose.case import Case, is_based_on
from airflow_tuner.model import Finding, Severity, Workload
from airflow_tuner.sentence import counted, listed, short


def another_policy_acts(case: Case) -> Iterator[Finding]:
    """An older policy tunes the same Airflow: two would undo each other's changes."""
    if elder := case.seen.elder:
        yield Finding(
            "AnotherPolicyActs",
            Severity.WARNING,
            "policy",
            f"The older TuningPolicy {short(elder)} tunes this Airflow. This one only recommends, until that one is "
            "deleted, is set to mode Recommend, or selects another Airflow.",
            case.seen.at,
        )


def change_budget_spent(case: Case) -> Iterator[Finding]:
    """The operator has made so many changes within the hour, over all policies, that something may be wrong with it."""
    budget = case.seen.budget
    if budget is not None and budget.again is not None and case.spec.mode is api.Mode.ENFORCE:
        yield Finding(
            "ChangeBudgetSpent",
            Severity.WARNING,
            "policy",
            f"The operator has made {budget.made} ordinary changes within an hour, over all policies, of at most "
            f"{budget.most} (changes.perHour of its chart): until {budget.again:%H:%M} it only answers kills. "
            "`kubectl get atp --all-namespaces` shows what it changed.",
            case.seen.at,
        )


def targets_not_found(case: Case) -> Iterator[Finding]:
    """The policy names components that this namespace does not have."""
    seen = {workload.component for workload in case.seen.workloads}
    named = {
        "scheduler": case.spec.scheduler,
        "dag-processor": case.spec.dag_processor,
        "triggerer": case.spec.triggerer,
        "api-server": case.spec.api_server,
    }
    missing = [name for name, entry in named.items() if entry is not None and name not in seen]
    if "webserver" in seen and "api-server" in missing:
        missing.remove("api-server")
    workers = case.seen.of("worker")
    missing += [
        f"worker/{entry.name}"
        for entry in case.spec.workers
        if not any(_is_for(entry, workload) for workload in workers)
    ]
    labels = ",".join(f"{key}={value}" for key, value in case.spec.airflow.labels.items())
    what, shows = "Deployment or StatefulSet", f"kubectl get deploy,sts -l {labels} --show-labels"
    if not case.seen.admission:
        what, shows = "service", "docker ps --format '{{.Names}} {{.Labels}}'"
    runs = case.seen.executors
    if not runs.celery and any(name.startswith("worker/") for name in missing):
        why = f" {runs.without_celery} Remove spec.workers from the policy."
    else:
        why = ""
    if missing:
        yield Finding(
            "TargetsNotFound",
            Severity.WARNING,
            "policy",
            f"No {what} was found for: {listed(missing, 10)}. Correct spec.airflow or remove them from the policy; "
            f"`{shows}` shows what there is.{why}",
            case.seen.at,
        )


def template_changed(case: Case) -> Iterator[Finding]:
    """Somebody changed a workload that is tuned, or one of its pods: the user wins."""
    tuned = {entry.target: entry for entry in case.prior.tuned}
    for workload in case.covered():
        entry = tuned.get(workload.target)
        if entry is not None and not is_based_on(entry, workload):
            yield Finding(
                "TemplateChanged",
                Severity.INFO,
                workload.target,
                f"The resources in the template of {short(workload.label)} were changed since it was tuned: the new "
                "template counts, and tuning starts from it.",
                case.seen.at,
            )
        others = [
            pod.name
            for pod in workload.living
            if entry is not None and not (pod.decision or pod.resized) and pod.memory != workload.template
        ]
        if others:
            yield Finding(
                "TemplateChanged",
                Severity.INFO,
                workload.target,
                f"The memory values of {counted(len(others), 'pod', 'pods')} of {short(workload.label)} come neither "
                f"from the template nor from the operator ({listed(others)}): left alone.",
                case.seen.at,
            )


def _is_for(entry: api.Worker, workload: Workload) -> bool:
    return entry.name in {"*", workload.name, workload.target.removeprefix("worker/")}
