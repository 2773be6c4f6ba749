"""A client of the short paths that never starts an experiment: variants, users, eligibility, results."""

import math
from typing import Any

import httpx2
import pytest

from live import Server

USERS = 300


@pytest.fixture
def experiment(server: Server) -> dict[str, Any]:
    """Made without variants, then 70 % control and 30 % of something new."""
    with server.client() as client:
        made = client.post("/api/experiments", json={"name": "By hand"})
        assert made.status_code == 201, made.text
        [control] = made.json()["variants"]
        assert (control["name"], control["allocation_percent"], made.json()["status"]) == (
            "control",
            100,
            "running",
        )
        base = f"/api/experiments/{made.json()['id']}"
        changed = client.put(f"{base}/variants/{control['id']}", json={"allocation_percent": 70})
        assert changed.status_code == 200, changed.text
        added = client.post(
            f"{base}/variants", json={"name": "blue", "allocation_percent": 30, "config": {"n": 1}}
        )
        assert added.status_code == 201, added.text
        found: dict[str, Any] = client.get(base).json()
        assert [(v["name"], v["allocation_percent"]) for v in found["variants"]] == [
            ("control", 70),
            ("blue", 30),
        ]
        return found


def eligible(client: httpx2.Client, user: str, *experiments: int) -> dict[str, Any]:
    """The answer for one user."""
    answer = client.post(
        "/api/experiments/check-eligibility", json={"user_id": user, "experiment_ids": list(experiments)}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_client_that_never_starts__gets_assignments_and_a_true_result(
    server: Server, experiment: dict[str, Any]
) -> None:
    number = experiment["id"]
    names = {variant["id"]: variant["name"] for variant in experiment["variants"]}
    assigned: dict[str, list[str]] = {"control": [], "blue": []}
    with server.client() as client:
        for i in range(USERS):
            user = client.post(
                "/api/users", json={"id": f"u{i}", "country_code": "US" if i % 2 else "AR"}
            ).json()
            assert user["country_code"] == ("US" if i % 2 else "AR")
            answer = eligible(client, user["id"], number, 4711)
            assert answer["ineligible"] == {"4711": "unknown_experiment"}
            mine = answer["eligible_experiment_ids"][str(number)]
            assert mine["variant_name"] == names[mine["variant_id"]]
            assert mine["config"] == ({"n": 1} if mine["variant_name"] == "blue" else {})
            assigned[mine["variant_name"]].append(user["id"])
        # 30 % of 300, five standard deviations around it.
        assert abs(len(assigned["blue"]) - 90) < 40
        # Every tenth of the control buys, and every fifth of the others; each twice, which is one conversion.
        buyers = {"control": assigned["control"][::10], "blue": assigned["blue"][::5]}
        for name, users in buyers.items():
            for user in users:
                for _ in range(2):
                    body = {
                        "user_id": user,
                        "experiment_id": number,
                        "type": "conversion",
                        "properties": {"value": 5},
                    }
                    sent = client.post("/api/events", json=body)
                    assert sent.status_code == 201, sent.text
                    assert names[sent.json()["variant_id"]] == name
        question = {
            "conversion_event_type": "conversion",
            "confidence_level": 0.95,
            "significance_threshold": 0.05,
        }
        results = client.post(f"/api/experiments/{number}/results", json=question).json()
        detailed = client.get(f"/api/experiments/{number}/results?event_type=conversion").json()
    n1, n2 = len(assigned["control"]), len(assigned["blue"])
    k1, k2 = len(buyers["control"]), len(buyers["blue"])
    pooled = (k1 + k2) / (n1 + n2)
    z = (k2 / n2 - k1 / n1) / math.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    p = math.erfc(abs(z) / math.sqrt(2))
    arms = {arm["variant_name"]: arm for arm in results["variants"]}
    for name, (n, k) in {"control": (n1, k1), "blue": (n2, k2)}.items():
        arm, rate = arms[name], k / n
        assert (arm["total_users"], arm["conversions"]) == (n, k)
        assert arm["conversion_rate"] == pytest.approx(100 * rate)
        half = 1.959963984540054 * math.sqrt(rate * (1 - rate) / n)
        assert arm["confidence_interval"]["lower"] == pytest.approx(100 * (rate - half))
        assert arm["confidence_interval"]["upper"] == pytest.approx(100 * (rate + half))
    assert arms["blue"]["p_value"] == pytest.approx(p, rel=1e-9)
    assert arms["blue"]["relative_uplift"] == pytest.approx(100 * (k2 / n2 / (k1 / n1) - 1))
    assert arms["blue"]["is_significant"] == (p <= 0.05)
    assert results["winner"] == ("blue" if p <= 0.05 else None)
    assert (arms["control"]["is_control"], arms["control"]["p_value"]) == (True, None)
    assert detailed["comparison"]["z_score"] == pytest.approx(z, rel=1e-9)
    assert detailed["variant_stats"]["blue"]["metrics"]["total_revenue"] == pytest.approx(10 * k2)
    assert detailed["summary"]["total_events"] == 2 * (k1 + k2)
    share = detailed["srm"]["observed_split_percent"]
    assert share == pytest.approx({str(v): 100 * len(assigned[names[v]]) / USERS for v in names})


def test_segment__decides_who_is_eligible(server: Server, experiment: dict[str, Any]) -> None:
    number = experiment["id"]
    with server.client() as client:
        for user, country in (("ann", "US"), ("bob", "AR"), ("eve", "FR")):
            assert client.post("/api/users", json={"id": user, "country_code": country}).status_code == 201
        rule = {"name": "Americans", "description": "", "rules": {"country_code": "US"}}
        segment = client.post("/api/segments", json=rule).json()
        attached = client.post(
            "/api/segments/assign-experiment", json={"segment_id": segment["id"], "experiment_id": number}
        )
        assert attached.status_code in {200, 201}, attached.text
        listed = client.post(
            "/api/segments/assign-user", json={"segment_id": segment["id"], "user_id": "eve"}
        )
        assert listed.status_code in {200, 201}, listed.text
        assert str(number) in eligible(client, "ann", number)["eligible_experiment_ids"]
        assert str(number) in eligible(client, "eve", number)["eligible_experiment_ids"]
        assert eligible(client, "bob", number)["ineligible"] == {str(number): "not_in_segment"}


def test_variant_switched_off__keeps_its_users_and_gets_no_new_ones(
    server: Server, experiment: dict[str, Any]
) -> None:
    number, blue = experiment["id"], experiment["variants"][1]["id"]
    with server.client() as client:
        before = {
            user: eligible(client, user, number)["eligible_experiment_ids"][str(number)]["variant_id"]
            for user in (f"before-{i}" for i in range(60))
        }
        assert set(before.values()) == {variant["id"] for variant in experiment["variants"]}
        off = client.put(f"/api/experiments/{number}/variants/{blue}", json={"enabled": False})
        assert off.status_code == 200, off.text
        for user, variant in before.items():
            answer = client.get(f"/api/experiments/{number}/assignment/{user}").json()
            assert answer["assigned_variant_id"] == variant
            assert answer["variant_name"] == "control"
            assert (answer["reason"] == "variant_disabled") == (variant == blue)
        for i in range(60):
            answer = eligible(client, f"after-{i}", number)["eligible_experiment_ids"][str(number)]
            assert answer["variant_name"] == "control"
