"""An operator that asks Airflow's REST API what runs next, as its configuration names it and a policy chooses it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cluster.faults import condition, eventually
from edges.servers import serving
from testbed.controlplane import ControlPlane
from testbed.operator_process import Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import Area

NOWHERE = "http://127.0.0.1:9"
NOW = datetime.now(UTC)


def answer() -> str:
    """One document for every question: a DAG that is due in an hour, and ran a month ago."""
    began = NOW - timedelta(days=30)
    return json.dumps(
        {
            "access_token": "a-token",
            "dags": [{"dag_id": "month_end", "next_dagrun_run_after": (NOW + timedelta(hours=1)).isoformat()}],
            "dag_runs": [{"start_date": began.isoformat(), "end_date": (began + timedelta(hours=2)).isoformat()}],
        }
    )


def test_a_policy_chooses_an_api_of_its_namespace_and_says_whether_it_answers(
    area: Area, chart: ControlPlane, airflow: PlayedAirflow, tmp_path: Path
) -> None:
    airflow.deploy("worker", 1, {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi"}})
    (tmp_path / "username").write_text("tuner")
    (tmp_path / "password").write_text("of-nobody")
    with serving(answer, 201) as server:
        own = {"url": server.url, "namespace": airflow.namespace, "credentials": str(tmp_path)}
        apis = {"main": own, "other": {"url": server.url, "namespace": "elsewhere"}}
        with Operator(area, chart, NOWHERE, [airflow.namespace], apis=apis) as operator:
            airflow.policy(airflow={"release": "airflow", "api": "main", "version": "3"})

            def told(status: str) -> bool:
                found = [one for one in airflow.status().get("conditions", []) if one["type"] == "CalendarAvailable"]
                return [one["status"] for one in found] == [status]

            def another_turn(name: str | None, seconds: int) -> None:
                # A policy that changes is looked at at once.
                own = {"release": "airflow", "version": "3", **({"api": name} if name else {})}
                airflow.policy(airflow=own, objectives={"queueLagSeconds": seconds})

            eventually(lambda: len(server.asked) >= 3, f"the questions\n{operator.log()}")
            another_turn("main", 31)
            eventually(lambda: told("True"), f"the calendar\n{operator.log()}")
            paths = [path.partition("?")[0] for path, _ in server.asked]
            assert paths == ["/auth/token", "/api/v2/dags", "/api/v2/dags/month_end/dagRuns"]
            assert {headers.get("Authorization") for _, headers in server.asked[1:]} == {"Bearer a-token"}
            another_turn("other", 32)
            another_turn("other", 33)
            eventually(lambda: told("False"), f"that it is another namespace's\n{operator.log()}")
            message = condition(airflow, "CalendarAvailable")["message"]
            assert "knows no REST API other for the namespace" in message
            assert len(server.asked) == 3, "the other namespace's was not asked"
            assert "Traceback" not in operator.log()
            assert "of-nobody" not in operator.log()
