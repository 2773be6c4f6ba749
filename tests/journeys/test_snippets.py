"""The calls that pages print do, as they are printed, what the page says."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from assay.dashboard.snippets import calls
from live import Server

#: What stands in for the packages that two of the calls import: each asks for what the real one asks for, by
#: OFREP and by GrowthBook's SDK protocol, so that addresses, keys and bodies are met by a real server.
_PACKAGES = {
    "@openfeature/server-sdk": """
        let provider;
        const ask = (key, fallback, context) => provider.evaluate(key, context);
        export const OpenFeature = {
          setProviderAndWait: async (given) => { provider = given; },
          getClient: () => ({ getStringValue: ask, getObjectValue: ask }),
        };""",
    "@openfeature/ofrep-provider": """
        export class OFREPProvider {
          constructor({ baseUrl, headers }) { Object.assign(this, { baseUrl, headers }); }
          async evaluate(key, context) {
            const answer = await fetch(`${this.baseUrl}/ofrep/v1/evaluate/flags/${key}`, {
              method: "POST",
              headers: [...this.headers, ["Content-Type", "application/json"]],
              body: JSON.stringify({ context }),
            });
            if (!answer.ok) throw new Error(await answer.text());
            return (await answer.json()).value;
          }
        }""",
    "@growthbook/growthbook": """
        export class GrowthBook {
          constructor(options) { this.options = options; }
          async init() {
            const { apiHost, clientKey } = this.options;
            const answer = await fetch(`${apiHost}/api/features/${clientKey}`);
            if (!answer.ok) throw new Error(await answer.text());
            this.features = (await answer.json()).features;
          }
          getFeatureValue(key, fallback) {
            const rule = this.features[key].rules[0];
            const result = { hashValue: this.options.attributes.id, key: rule.meta[1].key };
            this.options.trackingCallback({ key: rule.key }, result).then((answer) => {
              if (!answer.ok) throw new Error(`${answer.status}`);
            });
            return rule.variations[1];
          }
        }""",
}

#: The client that is printed is the one most people have; ours answers to its name.
_HTTPX = "import sys\nimport httpx2\nsys.modules['httpx'] = httpx2\n"


def _program(language: str, text: str, key: str, folder: Path) -> Sequence[str | Path]:
    """What runs a printed call, given the key as its reader would."""
    if language == "curl":
        return ["bash", "-c", f"{text} --fail --silent"]
    file = folder / ("call.py" if language == "Python" else "call.mjs")
    before = f"{_HTTPX}KEY = {key!r}\n" if language == "Python" else f"const KEY = {key!r};\n"
    file.write_text(before + text, encoding="utf-8")
    return [sys.executable if language == "Python" else "node", file]


def _run(language: str, text: str, key: str, folder: Path) -> None:
    done = subprocess.run(
        _program(language, text, key, folder),
        env={**os.environ, "KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_three_printed_calls_lead_to_a_first_result(server: Server, tmp_path: Path, language: str) -> None:
    program = {"curl": "curl", "JavaScript": "node"}.get(language)
    if program is not None and shutil.which(program) is None:
        pytest.skip(f"there is no {program} on this machine")
    # A name that a shell, or a careless quotation mark, would take for more than text.
    found = calls(server.url, "first-experiment", 'it\'s "a" $(touch sign) `up` \\n')
    for step in (found.create, found.assign, found.track):
        _run(language, dict(step)[language], server.key, tmp_path)
    with server.client() as client:
        report = client.get("/api/v1/experiments/first-experiment/report").json()
    assert report["total_units"] == 1
    assert sum(arm["converters"] for arm in report["metrics"][0]["variants"]) == 1


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("language", ["OpenFeature", "GrowthBook"])
def test_printed_calls_of_sdks_ask_what_the_server_answers(
    shared_server: Server, tmp_path: Path, language: str, *, configured: bool
) -> None:
    if shutil.which("node") is None:
        pytest.skip("there is no node on this machine")
    for package, text in _PACKAGES.items():
        folder = tmp_path / "node_modules" / package
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"type": "module", "exports": "./index.js"}', encoding="utf-8")
        (folder / "index.js").write_text(text, encoding="utf-8")
    key = f"sdk-{language}-{configured}".lower()
    variants = [{"name": name, "allocation": 0.5} for name in ("control", "treatment")]
    if configured:
        variants = [{**each, "config": {"colour": "blue"}} for each in variants]
    with shared_server.client() as client:
        body = {"key": key, "name": key, "variants": variants, "metrics": ["signup"], "status": "running"}
        assert client.post("/api/v1/experiments", json=body).status_code == 201
        made = client.post("/api/v1/auth/keys", json={"name": "application", "role": "client"}).json()
        text = dict(calls(shared_server.url, key, "signup", configured=configured).assign)[language]
        shown = "console.log(JSON.stringify(value));"
        file = tmp_path / "call.mjs"
        file.write_text(f"const KEY = {made['key']!r};\n{text}\n{shown}", encoding="utf-8")
        done = subprocess.run(
            ["node", file], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        value = json.loads(done.stdout)
        assert value == {"colour": "blue"} if configured else value in {"control", "treatment"}
        report = client.get(f"/api/v1/experiments/{key}/report").json()
    assert report["total_units"] == 1
