"""Where figures are kept, and of which code they are."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "evidence"


def commit() -> str:
    """The commit that is checked out, and whether files differ from it."""
    changed = " with uncommitted changes" if _git("status", "--porcelain", "--", "controller", "tests") else ""
    return f"{_git('rev-parse', '--short', 'HEAD') or 'unknown'}{changed}"


def _git(*words: str) -> str:
    answer = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return answer.stdout.strip()
