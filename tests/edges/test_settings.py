"""The file of metrics sources: what is wrong in it is said in words that help, and never repeats a secret."""

from pathlib import Path

import pytest

from airflow_tuner.errors import Misconfigured
from airflow_tuner.settings import FORM, Api, Source, read_apis, read_sources

SECRET = "hunter2"  # noqa: S105 - of nothing


def refusal(file: Path, text: str | bytes) -> str:
    """The sentence for a file with this text."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Misconfigured) as caught:
        read_sources(file)
    told = str(caught.value)
    assert SECRET not in told
    assert "pydantic" not in told
    assert "\n" not in told
    assert told.startswith(f"Mend the file of metrics sources {file}, of the form `{FORM}`: ")
    return told.partition("`: ")[2]


def test_a_good_file_names_its_sources(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text("""
sources:
  default: {url: http://prometheus:9090/}
  thanos: {url: "https://thanos.example:443/prefix", bearerTokenFile: /var/run/token, timeoutSeconds: 2.5}
""")
    assert read_sources(file) == {
        "default": Source(url="http://prometheus:9090", bearer_token_file=None, timeout_seconds=10),
        "thanos": Source(
            url="https://thanos.example:443/prefix", bearer_token_file=Path("/var/run/token"), timeout_seconds=2.5
        ),
    }


def test_a_good_file_may_name_apis_of_airflow(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text("""
sources: {default: {url: http://prometheus:9090}}
apis:
  main: {url: http://api.airflow:8080/, namespace: airflow, credentials: /etc/airflow-apis/main}
""")
    assert read_apis(file) == {
        "main": Api(url="http://api.airflow:8080", namespace="airflow", credentials=Path("/etc/airflow-apis/main"))
    }
    told = refusal(file, "sources: {}\napis: {main: {url: 'api:8080', namespace: a, token: " + SECRET + "}}")
    assert "an Airflow's url must be like http://airflow-api-server.airflow:8080" in told
    assert "apis.main.token: Extra inputs are not permitted" in told


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"none\.yaml cannot be read: No such file or directory\. Give another"):
        read_sources(tmp_path / "none.yaml")
    with pytest.raises(Misconfigured, match="cannot be read: Is a directory"):
        read_sources(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sources: {default: {url: 'x\n" + SECRET, "it is not YAML at line "),
        ("sources: {default: {url: http://p}}\n: : " + SECRET + "\n- x", "it is not YAML at line "),
        (b"sources: \xff\xfe", "it is not YAML in UTF-8."),
        ("sources: \x00", "it is not YAML in UTF-8."),
        ("", "the file: Input should be "),
        ("- " + SECRET, "the file: Input should be "),
        ("{}", "sources: Field required."),
        ("sources: []", "sources: Input should be a valid dictionary."),
        ("sources: {default: {}}", "sources.default.url: Field required."),
        ("sources: {default: {url: http://p}}\ntoken: " + SECRET, "token: Extra inputs are not permitted."),
        (
            "sources: {default: {url: http://p, bearer: " + SECRET + "}}",
            "sources.default.bearer: Extra inputs are not permitted.",
        ),
        ("sources: {default: {url: http://p, timeoutSeconds: 0}}", "sources.default.timeoutSeconds: Input should be "),
        ("sources: {default: {url: http://p, timeoutSeconds: .nan}}", "sources.default.timeoutSeconds: Input should "),
    ],
)
def test_a_file_of_another_form_is_told_with_its_place(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert refusal(tmp_path / "sources.yaml", text).startswith(told)


@pytest.mark.parametrize(
    "url",
    ["prometheus:9090", f"ftp://{SECRET}@p", "http://", "http://:9090", "http://p:0", "http://p:99999", "http://p?x=1"],
)
def test_an_address_that_is_none_is_told_with_one_that_is(tmp_path: Path, url: str) -> None:
    told = refusal(tmp_path / "sources.yaml", f"sources: {{default: {{url: '{url}'}}}}")
    assert told.startswith("sources.default.url: ")
    assert "http://prometheus.monitoring:9090" in told


def test_two_things_wrong_are_both_told(tmp_path: Path) -> None:
    told = refusal(tmp_path / "sources.yaml", "sources: {a: {url: x}, b: {}}")
    assert "sources.a.url: " in told
    assert "sources.b.url: Field required" in told
