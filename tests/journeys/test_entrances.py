"""The other ways in: another ASGI server, the demo, keys and migrations by the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from live import Server, environment, run, until


def test_uvicorn__serves_what_assay_serve_serves(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", {"ADMIN_TOKEN": "a-key"})
    with server, server.client() as client:
        made = client.post("/experiments", json={"name": "Both ways"}).json()
        first = client.get("/experiments/both-ways/assignment/ann").json()
        paths = set(client.get("/openapi.json").json()["paths"])
        assert server.stop() == 0
    log = tmp_path / "uvicorn.log"
    command = [sys.executable, "-m", "uvicorn", "assay.asgi:app", "--port", "0", "--host", "127.0.0.1"]
    settings = {"ADMIN_TOKEN": "a-key", "DATA_DIR": str(server.data)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(settings), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), "uvicorn listens")[0]
        with httpx2.Client(base_url=url, headers={"Authorization": "Bearer a-key"}) as client:
            until(lambda: client.get("/ready").status_code == 200, "the application is ready")
            assert client.get("/experiments/both-ways").json() == made
            assert client.get("/experiments/both-ways/assignment/ann").json() == first
            assert set(client.get("/openapi.json").json()["paths"]) == paths
    finally:
        process.terminate()
        process.wait(30)


def test_demo__has_a_result_to_look_at(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    made = run("demo", "--no-serve", "--users", "2000", "--seed", "7", "--data", data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "demo-checkout" in made.stdout
    with Server(data) as server, server.client() as client:
        found = client.get("/experiments/demo-checkout/results").json()
        assert found["total_users_in_experiment"] == 2000
        assert [arm["variant_name"] for arm in found["variants"]] == ["control", "new-checkout"]
        # The simulated truth is 10.0 % and 11.6 %: four standard errors around it.
        assert 0.06 < found["variants"][0]["conversion_rate"] < 0.14
        assert 0.07 < found["variants"][1]["conversion_rate"] < 0.16
    again = run("demo", "--no-serve", "--users", "2000", "--data", data, cwd=tmp_path)
    assert again.returncode == 1
    assert len(again.stderr.splitlines()) == 1


def test_keys__made_beside_a_running_server__work_at_once(server: Server, tmp_path: Path) -> None:
    made = run("keys", "create", "shop", "--role", "client", "--data", server.data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    with server.client() as admin:
        admin.post("/experiments", json={"name": "Keyed"})
        [listed] = [key for key in admin.get("/auth/keys").json()["keys"] if key["name"] == "shop"]
        assert (listed["role"], listed["is_active"], "key" in listed) == ("client", True, False)
    with server.client(secret) as client:
        assert client.get("/experiments/keyed/assignment/ann").json()["assigned"] is True
        assert client.get("/experiments/keyed/results").status_code == 403
        revoked = run("keys", "revoke", str(listed["id"]), "--data", server.data, cwd=tmp_path)
        assert revoked.returncode == 0, revoked.stderr
        assert client.get("/experiments/keyed/assignment/bob").status_code == 401
    shown = run("keys", "list", "--data", server.data, cwd=tmp_path)
    assert "shop" in shown.stdout
    assert secret not in shown.stdout


def test_migrate__prepares_a_directory_that_serve_then_takes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for _ in range(2):
        done = run("migrate", "--data", data, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "up to date" in done.stdout
    with Server(data) as server, server.client() as client:
        assert client.get("/ready").json()["status"] == "ready"


def test_settings__wrong_value__named_in_one_sentence(tmp_path: Path) -> None:
    refused = run("serve", cwd=tmp_path, extra={"CACHE_MAX_SIZE": "many", "DATA_DIR": str(tmp_path / "data")})
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "CACHE_MAX_SIZE" in refused.stderr
    assert "many" in refused.stderr
    assert not (tmp_path / "data").exists()


def test_dot_env__is_read_where_the_server_starts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ADMIN_TOKEN=from-the-file\nMAX_BATCH_EVENTS=2\n")
    with Server(tmp_path / "data") as server, server.client("from-the-file") as client:
        events = [{"user_id": "ann", "type": "seen"}] * 3
        refused = client.post("/events", content=json.dumps(events))
        assert refused.status_code == 413
        assert "2 are allowed" in refused.json()["detail"]
        assert not (server.data / "admin.key").exists()


def test_stop_right_after_an_answer__loses_nothing(server: Server) -> None:
    with server.client() as client:
        client.post("/experiments", json={"name": "Stopped"})
        events = [{"user_id": f"u{i}", "type": "seen", "event_id": f"e{i}"} for i in range(500)]
        assert client.post("/events", json=events).json()["accepted"] == 500
    server.restart()
    with server.client() as client:
        found = client.get("/events", params={"limit": 1000}).json()["events"]
        assert sorted(event["event_id"] for event in found) == sorted(f"e{i}" for i in range(500))


def test_report__is_printed_and_computed_again_beside_a_running_server(
    server: Server, tmp_path: Path
) -> None:
    with server.client() as admin:
        admin.post("/experiments", json={"name": "Told", "metrics": ["buy"]})
        for number in range(40):
            arm = admin.get(f"/experiments/told/assignment/u{number}").json()["variant_name"]
            assert arm == "control"
        admin.post("/events", json=[{"user_id": f"u{number}", "type": "buy"} for number in range(10)])
    shown = run("report", "told", "--data", server.data, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "Told (told), running, 40 units" in shown.stdout
    assert "25.0 %" in shown.stdout
    printed = run("report", "told", "--json", "--data", server.data, cwd=tmp_path)
    saved = tmp_path / "report.json"
    saved.write_text(printed.stdout)
    again = run("verify", str(saved), cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "are what the report's own statistics give" in again.stdout
    document = json.loads(printed.stdout)
    document["metrics"][0]["variants"][0]["value"] = 0.26
    saved.write_text(json.dumps(document))
    wrong = run("verify", str(saved), cwd=tmp_path)
    assert wrong.returncode == 1
    assert "metrics[buy].variants[control].value" in wrong.stdout
    missing = run("report", "nowhere", "--data", server.data, cwd=tmp_path)
    assert missing.returncode == 1
    assert "nowhere" in missing.stderr
