"""The one folder outside the checkout that the project writes to."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/airflow-tuner`, else `~/.cache/airflow-tuner`; it need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "airflow-tuner"
