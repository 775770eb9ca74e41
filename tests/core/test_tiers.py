"""`make test` runs every tier once."""

from testbed.evidence import ROOT
from testbed.tiers import GROUPS


def test_every_tier_is_in_one_group() -> None:
    there = {f"tests/{file.parent.name}" for file in (ROOT / "tests").glob("*/test_*.py")}
    run = [tier for tiers in GROUPS.values() for tier in tiers]
    assert sorted(run) == sorted(there)
