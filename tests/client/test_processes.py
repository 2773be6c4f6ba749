"""The client at the edges of a process: what it loads, forks, the interpreter's end, being forgotten."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from assay.client import Client, Options
from live import Server, environment, until

OPTIONS = Options(first_wait=60, exit_wait=60, flush_interval=60)

#: What only the server needs.
FOREIGN = {
    *("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "sqlalchemy", "alembic", "duckdb", "sqlglot"),
    *("asyncpg", "psycopg", "numpy", "scipy", "jinja2", "typer", "rich", "structlog", "prometheus_client"),
    *("dotenv", "openfeature", "re2", "httpx", "requests"),
}


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def experiment(shared_server: Server) -> str:
    body = {
        "name": "forked",
        "key": "forked",
        "status": "running",
        "variants": [{"name": "control", "allocation": 0.5}, {"name": "blue", "allocation": 0.5}],
        "primary_metric": "purchase",
    }
    with shared_server.client() as admin:
        assert admin.post("/api/v1/experiments", json=body).status_code == 201
        key: str = admin.post("/auth/keys", json={"name": "app", "role": "client"}).json()["key"]
    return key


def stored(server: Server, user: str) -> int:
    with server.client() as admin:
        found: dict[str, Any] = admin.get("/api/v1/events", params={"user_id": user}).json()
    return len(found["events"])


def test_import__loads_nothing_of_the_server(tmp_path: Path) -> None:
    done = python(
        """
        import json, sys
        import assay.client
        print(json.dumps(sorted({name for name in sys.modules})))
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert FOREIGN.isdisjoint(name.partition(".")[0] for name in loaded)
    rooms = {name.split(".")[1] for name in loaded if name.startswith("assay.")}
    assert rooms == {"bucketing", "client", "errors"}


def test_end_of_the_interpreter__what_was_recorded_is_sent(
    shared_server: Server, experiment: str, tmp_path: Path
) -> None:
    code = """
        import sys
        from assay.client import Client, Options
        url = sys.argv[1].replace("127.0.0.1", "localhost")
        client = Client(url, sys.argv[2], Options(exit_wait=60))
        for number in range(30):
            client.track("leaving", "purchase")
        """
    for ending in ("", "sys.exit(3)", "raise KeyError('an accident')"):
        done = python(f"{textwrap.dedent(code)}\n{ending}", shared_server.url, experiment, cwd=tmp_path)
        assert "assay" not in done.stderr, done.stderr
    assert stored(shared_server, "leaving") == 90


def test_end_of_the_interpreter_without_a_server__takes_no_longer_than_stated(tmp_path: Path) -> None:
    done = python(
        """
        import time
        from assay.client import Client, Options
        client = Client("http://127.0.0.1:9", "assay_x", Options(exit_wait=0.3))
        client.track("leaving", "purchase")
        import atexit
        # First in, last out: the client, which registered before, ends after this.
        began = time.monotonic()
        atexit.register(lambda: print("left"))
        """,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
    assert "1 recorded items could not be sent in 0.3 s and are lost" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork__parent_and_children_each_send_their_own_once(
    shared_server: Server, experiment: str, tmp_path: Path
) -> None:
    done = python(
        """
        import os, sys
        from assay.client import Client, Options
        client = Client(sys.argv[1], sys.argv[2], Options(first_wait=60, exit_wait=60, flush_interval=60))
        assert client.evaluate("forked", "before").assigned
        client.track("parent", "purchase")
        children = []
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                found = client.evaluate("forked", f"child-{number}")
                assert found.assigned and found.origin == "payload", found
                client.track(f"child-{number}", "purchase")
                assert client.flush(60), client.delivery()
                assert client.delivery().accepted == 2, client.delivery()
                assert client.assign("forked", f"child-{number}").variant == found.variant
                os._exit(0)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        client.track("parent", "purchase")
        assert client.flush(60)
        assert client.delivery().accepted == 3, client.delivery()
        assert client.wait_until_ready(60)
        """,
        shared_server.url,
        experiment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert stored(shared_server, "parent") == 2
    assert [stored(shared_server, f"child-{number}") for number in range(3)] == [1, 1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_fork_while_other_threads_use_the_client__the_child_is_not_locked(
    shared_server: Server, experiment: str, tmp_path: Path
) -> None:
    done = python(
        """
        import os, sys, threading
        from assay.client import Client, Options
        client = Client(sys.argv[1], sys.argv[2], Options(first_wait=60, queue=500, flush_interval=0.01))
        client.evaluate("forked", "before")
        stop = threading.Event()
        def busy():
            number = 0
            while not stop.is_set():
                number += 1
                client.evaluate("forked", f"busy-{number % 3000}")
                client.track("busy", "purchase")
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads: thread.start()
        codes = []
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                client.evaluate("forked", "child")
                client.track("child", "purchase")
                os._exit(0)
            codes.append(os.waitpid(pid, 0)[1])
        stop.set()
        for thread in threads: thread.join()
        assert codes == [0] * 8
        """,
        shared_server.url,
        experiment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_client_that_is_forgotten__sends_what_it_has_and_ends(shared_server: Server, experiment: str) -> None:
    client = Client(shared_server.url, experiment, OPTIONS)
    client.track("forgotten", "purchase")
    before = {each for each in threading.enumerate() if each.name == "assay"}
    del client
    gc.collect()
    until(lambda: stored(shared_server, "forgotten") == 1, "what it had was sent")
    until(lambda: not any(each.is_alive() for each in before), "its thread has ended")


def test_client_that_is_closed__records_no_more_and_answers_from_memory(
    shared_server: Server, experiment: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(shared_server.url, experiment, OPTIONS) as client:
        variant = client.evaluate("forked", "ada").variant
        for _ in range(3):
            assert client.close()
    assert client.evaluate("forked", "ada").variant == variant
    client.track("ada", "purchase")
    client.track("ada", "purchase")
    assert client.assign("forked", "ada").variant == variant
    assert client.delivery().lost == 2
    assert not client.wait_until_ready(0.1) or client.status == "ready"
    assert [record.message for record in caplog.records].count(
        "The client is closed: what is recorded now is lost."
    ) == 1


def test_client_that_was_never_used__has_no_thread_and_nothing_to_close() -> None:
    number = threading.active_count()
    client = Client("http://127.0.0.1:9", "assay_x")
    assert client.flush(1)
    assert client.close()
    assert threading.active_count() == number
