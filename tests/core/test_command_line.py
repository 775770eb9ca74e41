"""Wrong input to the commands: one sentence that says what to write instead, and no traceback."""

import pytest
from click.testing import CliRunner

from airflow_tuner.__main__ import main


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["plan", "--prometheus", "127.0.0.1:9090"],
            "--prometheus 127.0.0.1:9090: it must be like http://127.0.0.1:9090.",
        ),
        (["explain", "scheduler", "--kubeconfig", "/not/there"], "File '/not/there' does not exist."),
        (
            ["diagnose", "--sources", "/not/there"],
            "The file of metrics sources /not/there cannot be read: No such file",
        ),
        (["replay", "--policy", "/not/there"], "/not/there cannot be read: No such file or directory."),
        (["simulate", "steedy"], "there is no scenario steedy; there are: steady, midnight"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(words: list[str], told: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code in {1, 2}
    assert told in result.stderr
    assert "Traceback" not in result.output


def test_help_begins_with_what_is_looked_at_and_ends_with_what_few_need() -> None:
    told = CliRunner().invoke(main, ["plan", "--help"]).stdout
    places = [
        told.index(name) for name in ("--policy", "--file", "--namespace", "--prometheus", "--backend", "--output")
    ]
    assert places == sorted(places)
