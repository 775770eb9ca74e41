"""What the chart makes of its values: valid objects, few rights, and refusals that say what to do."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from airflow_tuner import api, crd, lease
from airflow_tuner.settings import read_apis, read_sources
from testbed.commands import CommandFailed

Object = dict[str, Any]
Render = Callable[..., list[Object]]

PLAIN_KINDS = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "Role", "RoleBinding", "ServiceAccount"]
ADMISSION_KINDS = ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]
TOKEN = {"name": "token", "mountPath": "/var/run/prometheus", "readOnly": True}
SWITCHES: dict[str, Object] = {
    "defaults": {},
    "watched namespaces": {"watchNamespaces": ["airflow-a", "airflow-b", "123"]},
    "no definition": {"crds": {"enabled": False}},
    "definition not kept": {"crds": {"keep": False}},
    "no admission": {"admission": {"enabled": False}},
    "admission that fails": {"admission": {"failurePolicy": "Fail"}},
    "image by digest": {
        "image": {"repository": "mirror/tuner", "digest": f"sha256:{'a' * 64}", "pullPolicy": "Always"}
    },
    "image by tag": {"image": {"tag": "next"}},
    "metrics sources": {
        "metrics": {
            "sources": {
                "default": {"url": "http://prometheus:9090"},
                "other": {
                    "url": "https://other/prom",
                    "bearerTokenFile": "/var/run/prometheus/token",
                    "timeoutSeconds": 5,
                },
            }
        },
        "extraVolumes": [{"name": "token", "secret": {"secretName": "prometheus"}}],
        "extraVolumeMounts": [TOKEN],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    },
    "airflow apis": {
        "airflow": {
            "apis": {
                "main": {"url": "http://api:8080", "namespace": "airflow", "secretName": "reader", "timeoutSeconds": 5},
                "open": {"url": "https://other/airflow", "namespace": "other"},
            }
        },
    },
    "broker secrets": {
        "celery": {
            "brokerSecrets": [
                {"namespace": "airflow-b", "name": "b-broker-url"},
                {"namespace": "airflow-a", "name": "two"},
                {"namespace": "airflow-a", "name": "one.more"},
            ]
        }
    },
    "few changes": {"changes": {"perHour": 5}},
    "no restarts": {"restarts": {"enabled": False}},
    "nodes of watched namespaces": {"watchNamespaces": ["airflow"], "nodes": {"look": "Always"}},
    "service account": {"serviceAccount": {"name": "tuner", "annotations": {"role": "reader"}}},
    "own service account": {"serviceAccount": {"create": False, "name": "mine"}},
    "placement": {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "system-cluster-critical",
    },
    "sizes": {"resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": None}},
    "name and log": {"fullnameOverride": "memory-keeper", "log": {"level": "debug"}},
}


def of_kind(objects: list[Object], kind: str) -> Object:
    """Returns the one object of that kind."""
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def operator(objects: list[Object]) -> Object:
    """Returns the operator's container."""
    (container,) = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def rights(role: Object) -> set[tuple[str, str, str]]:
    """Returns what a role allows, as (API group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_helm_finds_nothing_to_complain_about(chart: Path, helm_without_cluster: Callable[..., str]) -> None:
    assert "0 chart(s) failed" in helm_without_cluster("lint", "--strict", chart, "--kube-version=v1.36.3")


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_gives_valid_objects(name: str, render: Render) -> None:
    objects = render(SWITCHES[name])
    for item in objects:
        kubernetes_validate.validate(item, "1.36", strict=True)
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == "tuner"
    kinds = {item["kind"] for item in objects}
    assert ("CustomResourceDefinition" in kinds) == (name != "no definition")
    assert set(ADMISSION_KINDS).issubset(kinds) == (name != "no admission")


def test_by_default_the_whole_cluster_is_watched(render: Render) -> None:
    objects = render()
    kinds = sorted(item["kind"] for item in objects)
    assert kinds == sorted([*PLAIN_KINDS, *ADMISSION_KINDS, *["CustomResourceDefinition"] * 2])
    assert operator(objects)["args"] == [
        "run",
        "--sources=/etc/airflow-tuner/sources.yaml",
        "--health-port=8080",
        "--metrics-port=8081",
        "--changes-per-hour=60",
        "--log-level=info",
        "--all-namespaces",
    ]
    (match,) = of_kind(objects, ADMISSION_KINDS[1])["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert match["operator"] == "NotIn"
    assert match["values"] == ["kube-system", "operators"]


def test_watched_namespaces_bound_the_rights_the_flags_and_the_admission(render: Render) -> None:
    watched = ["airflow-a", "airflow-b"]
    objects = render({"watchNamespaces": watched})
    assert not {"ClusterRole", "ClusterRoleBinding"} & {item["kind"] for item in objects}
    for kind in ("Role", "RoleBinding"):
        places = sorted(item["metadata"]["namespace"] for item in objects if item["kind"] == kind)
        assert places == [*watched, "operators"]
    assert operator(objects)["args"][-2:] == ["--namespace=airflow-a", "--namespace=airflow-b"]
    (match,) = of_kind(objects, ADMISSION_KINDS[1])["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert match["operator"] == "In"
    assert match["values"] == watched


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["airflow"]}])
def test_the_operator_has_these_rights_and_no_other(values: Object, render: Render) -> None:
    roles = {item["metadata"]["name"]: item for item in render(values) if item["kind"] in {"Role", "ClusterRole"}}
    assert roles.keys() == {"tuner-airflow-tuner", "tuner-airflow-tuner-lease"}
    whole = not values.get("watchNamespaces")
    assert rights(roles["tuner-airflow-tuner"]) == {
        *([("", "nodes", "list")] if whole else []),
        *(("", kind, "list") for kind in ("resourcequotas", "limitranges")),
        *((api.GROUP, api.PLURAL, verb) for verb in ("get", "list", "watch")),
        *((api.GROUP, f"{api.PLURAL}/status", verb) for verb in ("get", "update", "patch")),
        *((api.GROUP, api.CHECKPOINT_PLURAL, verb) for verb in ("get", "create", "update")),
        *(("", "pods", verb) for verb in ("get", "list", "watch")),
        ("", "pods/resize", "patch"),
        ("", "pods/eviction", "create"),
        *(("apps", kind, verb) for kind in ("deployments", "statefulsets") for verb in ("get", "list", "watch")),
        *(("events.k8s.io", "events", verb) for verb in ("get", "list", "create", "patch")),
        ("metrics.k8s.io", "pods", "list"),
        ("autoscaling", "horizontalpodautoscalers", "list"),
        ("autoscaling.k8s.io", "verticalpodautoscalers", "list"),
        ("keda.sh", "scaledobjects", "list"),
    }
    leases = roles["tuner-airflow-tuner-lease"]
    assert leases["metadata"]["namespace"] == "operators"
    assert rights(leases) == {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    assert [rule.get("resourceNames") for rule in leases["rules"]] == [None, [lease.NAME]]


def test_no_secret_may_be_read_unless_it_is_named(render: Render) -> None:
    for values in ({}, {"watchNamespaces": ["airflow"]}, SWITCHES["metrics sources"]):
        roles = [item for item in render(values) if item["kind"] in {"Role", "ClusterRole"}]
        assert not any("secrets" in rule["resources"] for role in roles for rule in role["rules"])


@pytest.mark.parametrize("watched", [[], ["airflow-a", "airflow-b", "airflow-c"]], ids=["whole cluster", "watched"])
def test_the_brokers_secrets_may_be_read_one_by_one_where_they_are(watched: list[str], render: Render) -> None:
    objects = render({**SWITCHES["broker secrets"], "watchNamespaces": watched})
    roles = [item for item in objects if item["kind"] == "Role" and item["metadata"]["name"].endswith("-broker")]
    secret = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    assert {role["metadata"]["namespace"]: role["rules"] for role in roles} == {
        "airflow-a": [{**secret, "resourceNames": ["one.more", "two"]}],
        "airflow-b": [{**secret, "resourceNames": ["b-broker-url"]}],
    }
    bindings = [
        item for item in objects if item["kind"] == "RoleBinding" and item["roleRef"]["name"].endswith("broker")
    ]
    assert [item["metadata"]["namespace"] for item in bindings] == ["airflow-a", "airflow-b"]
    account = {"kind": "ServiceAccount", "name": "tuner-airflow-tuner", "namespace": "operators"}
    assert all(item["subjects"] == [account] for item in bindings)
    others = [item for item in objects if item["kind"] in {"Role", "ClusterRole"} and item not in roles]
    assert not any("secrets" in rule["resources"] for role in others for rule in role["rules"])


def test_a_brokers_secret_where_nothing_is_watched_is_refused_with_what_to_do(render: Render) -> None:
    secrets = {"brokerSecrets": [{"namespace": "elsewhere", "name": "broker-url"}]}
    with pytest.raises(
        CommandFailed, match=r"Secret broker-url in the namespace elsewhere(?s:.*)Add the namespace to wa"
    ):
        render({"watchNamespaces": ["airflow"], "celery": secrets})


def test_without_restarts_nothing_may_be_evicted(render: Render) -> None:
    usual = rights(of_kind(render(), "ClusterRole"))
    assert usual - rights(of_kind(render(SWITCHES["no restarts"]), "ClusterRole")) == {("", "pods/eviction", "create")}


def test_nodes_are_looked_at_where_the_whole_cluster_is_watched_or_it_is_asked_for(render: Render) -> None:
    usual = rights(of_kind(render(), "ClusterRole"))
    assert usual - rights(of_kind(render({"nodes": {"look": "Never"}}), "ClusterRole")) == {("", "nodes", "list")}
    objects = render(SWITCHES["nodes of watched namespaces"])
    role = of_kind(objects, "ClusterRole")
    assert (role["metadata"]["name"], rights(role)) == (
        "tuner-airflow-tuner-nodes",
        {("", "nodes", "list"), ("", "pods", "list")},
    )
    assert of_kind(objects, "ClusterRoleBinding")["roleRef"]["name"] == role["metadata"]["name"]
    with pytest.raises(CommandFailed, match="look"):
        render({"nodes": {"look": "Sometimes"}})


def test_the_pod_keeps_to_the_restricted_pod_security_standard(render: Render) -> None:
    pod = of_kind(render(), "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {frozenset(volume) - {"name"} for volume in pod["volumes"]} == {
        frozenset({"configMap"}),
        frozenset({"emptyDir"}),
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()


def test_the_operator_reads_the_sources_the_chart_writes(render: Render, tmp_path: Path) -> None:
    objects = render(SWITCHES["metrics sources"])
    file = tmp_path / "sources.yaml"
    file.write_text(of_kind(objects, "ConfigMap")["data"]["sources.yaml"])
    sources = read_sources(file)
    assert {name: source.url for name, source in sources.items()} == {
        "default": "http://prometheus:9090",
        "other": "https://other/prom",
    }
    assert sources["other"].timeout_seconds == 5
    assert sources["other"].bearer_token_file == Path("/var/run/prometheus/token")
    assert TOKEN in operator(objects)["volumeMounts"]


def test_the_operator_reads_the_apis_the_chart_writes_and_their_secrets_are_mounted(
    render: Render, tmp_path: Path
) -> None:
    objects = render(SWITCHES["airflow apis"])
    file = tmp_path / "sources.yaml"
    file.write_text(of_kind(objects, "ConfigMap")["data"]["sources.yaml"])
    assert read_sources(file) == {}
    apis = read_apis(file)
    assert {name: (api.url, api.namespace, api.credentials) for name, api in apis.items()} == {
        "main": ("http://api:8080", "airflow", Path("/etc/airflow-apis/main")),
        "open": ("https://other/airflow", "other", None),
    }
    assert apis["main"].timeout_seconds == 5
    mounted = {item["name"]: item for item in operator(objects)["volumeMounts"]}
    assert mounted["api-main"] == {"name": "api-main", "mountPath": "/etc/airflow-apis/main", "readOnly": True}
    assert "api-open" not in mounted
    volumes = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    (secret,) = [item["secret"] for item in volumes if item["name"] == "api-main"]
    assert secret["secretName"] == "reader"
    assert [item["key"] for item in secret["items"]] == ["username", "password"]


def test_a_changed_source_restarts_the_operator(render: Render) -> None:
    def mark(values: Mapping[str, Any]) -> object:
        return of_kind(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/sources"]

    marks = {mark(values) for values in ({}, SWITCHES["metrics sources"], SWITCHES["airflow apis"])}
    assert len(marks) == 3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"admision": {"enabled": False}}, "additional properties 'admision' not allowed"),
        ({"admission": {"enable": False}}, "at '/admission': additional properties 'enable' not allowed"),
        ({"admission": {"failurePolicy": "ignore"}}, "value must be one of 'Ignore', 'Fail'"),
        ({"watchNamespaces": "airflow"}, "at '/watchNamespaces': got string, want array"),
        ({"metrics": {"sources": {"default": "http://prometheus"}}}, "got string, want object"),
        ({"metrics": {"sources": {"default": {"url": "prometheus:9090"}}}}, "does not match pattern"),
        ({"metrics": {"sources": {"default": {"token": "secret"}}}}, "missing property 'url'"),
        ({"airflow": {"apis": {"main": {"url": "http://api"}}}}, "missing property 'namespace'"),
        ({"airflow": {"apis": {"Main": {"url": "http://api", "namespace": "a"}}}}, "does not match pattern"),
        ({"airflow": {"apis": {"main": {"url": "api", "namespace": "a"}}}}, "does not match pattern"),
        ({"celery": {"brokerSecrets": ["airflow-broker-url"]}}, "got string, want object"),
        ({"celery": {"brokerSecrets": [{"name": "broker-url"}]}}, "missing property 'namespace'"),
        ({"celery": {"brokerSecrets": [{"namespace": "airflow", "name": "*"}]}}, "does not match pattern"),
        ({"celery": {"brokerSecrets": [{"namespace": "airflow", "name": ""}]}}, "minLength: got 0, want 1"),
        ({"restarts": {"allowed": False}}, "at '/restarts': additional properties 'allowed' not allowed"),
        ({"log": {"level": "verbose"}}, "at '/log/level': value must be one of"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: Object, told: str, render: Render) -> None:
    with pytest.raises(CommandFailed, match=re.escape(told)):
        render(values)


def test_a_cluster_too_old_for_admission_is_told_what_to_set(render: Render) -> None:
    with pytest.raises(
        CommandFailed, match=r"needs Kubernetes 1.36 or later, and this is v1.35.4(?s:.*)admission.enabled=f"
    ):
        render(kubernetes="v1.35.4")
    kinds = {item["kind"] for item in render({"admission": {"enabled": False}}, kubernetes="v1.35.4")}
    assert set(PLAIN_KINDS) <= kinds
    assert render(kubernetes="v1.36.0-gke.100")
    with pytest.raises(CommandFailed, match="requires kubeVersion"):
        render({"admission": {"enabled": False}}, kubernetes="v1.32.9")


@pytest.mark.parametrize("plural", crd.DEFINITIONS)
def test_the_definitions_in_the_chart_are_the_generated_ones(plural: str, chart: Path, render: Render) -> None:
    copy = (chart / "files" / f"{plural}.yaml").read_text()
    assert copy == crd.rendered(plural), "run `make crd chart`"
    found = {item["metadata"]["name"]: item for item in render() if item["kind"] == "CustomResourceDefinition"}
    rendered = found[f"{plural}.{api.GROUP}"]
    assert rendered["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert rendered["spec"] == yaml.safe_load(copy)["spec"]


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values that have no named parts, by path."""
    for key, value in values.items():
        here = f"{path}{key}"
        if isinstance(value, dict) and value and here != "resources":
            yield from leaves(value, f"{here}.")
        else:
            yield here, value


def description(schema: Object, path: str) -> str:
    """Returns what the schema says about a value."""
    for key in path.split("."):
        schema = schema["properties"][key]
    return str(schema["description"])


def test_the_readme_lists_every_value_as_the_schema_describes_it(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text())
    rows = ["| Value | Default | Meaning |", "| --- | --- | --- |"]
    for path, value in leaves(yaml.safe_load((chart / "values.yaml").read_text())):
        rows.append(f"| `{path}` | `{json.dumps(value)}` | {description(schema, path)} |")
    wanted = "\n".join(rows)
    found = (chart / "README.md").read_text().partition("values.schema.json -->\n")[2].partition("\n<!-- end")[0]
    assert found == wanted, f"put this table into the chart's README.md:\n{wanted}"


def test_every_value_is_used_by_a_template(chart: Path) -> None:
    templates = "\n".join(file.read_text() for file in (chart / "templates").iterdir())
    for path, _ in leaves(yaml.safe_load((chart / "values.yaml").read_text())):
        assert f".Values.{path}" in templates, path
