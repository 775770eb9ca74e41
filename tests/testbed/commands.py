"""Commands that run to their end: their output, or an error that shows what they said."""

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class CommandFailed(Exception):  # noqa: N818 - it reads as what happened
    """A command exited with an error or ran out of time; the message holds its output."""


def run(
    argv: Sequence[str | Path],
    *,
    input: str | None = None,  # noqa: A002 - subprocess calls it so
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 60,
) -> str:
    """Runs a command to its end and returns its standard output; `env` is added to our environment.

    Raises CommandFailed after `timeout` seconds, and, with `check`, on an exit code other than 0.
    """
    words = [str(word) for word in argv]
    line = shlex.join([Path(words[0]).name, *words[1:]])
    try:
        answer = subprocess.run(
            words,
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{line}\ndid not end within {timeout:g} s") from error
    if check and answer.returncode != 0:
        raise CommandFailed(f"{line}\nexit code {answer.returncode}\n{answer.stdout}{answer.stderr}")
    return answer.stdout
