"""A whole experiment against a running server, with nothing but the standard library.

    assay serve                      # in one terminal
    python example.py                # in another

It creates an experiment, assigns users, records what they do (the true effect is known: the new button
turns 12 % of users into buyers instead of 10 %), and prints the result. The address and the key come from
the arguments, from ASSAY_URL and ASSAY_KEY, or from a server started in this directory.
"""

import argparse
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

BUYERS = {"current": 0.10, "new": 0.12}


class Client:
    """Speaks JSON to one server with one key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/") + "/api/v1"
        self.key = key

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and give back the answer; the server's own words when it refuses."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            give_up(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}")
        except OSError as error:
            give_up(f"No server answers at {self.url}: {error}. Start one with: assay serve")


def give_up(sentence: str) -> NoReturn:
    """Say why, and end."""
    print(sentence, file=sys.stderr)
    raise SystemExit(1)


def play(client: Client, users: int, seed: int) -> dict[str, Any]:
    """Run the experiment and give back its results."""
    luck = random.Random(seed)
    run = f"{time.time_ns():x}"

    experiment = client.call(
        "POST",
        "/experiments",
        {
            "name": f"Buy button {run}",
            "hypothesis": "A clearer button turns more visitors into buyers.",
            "variants": [
                {"name": "current", "allocation": 0.5, "is_control": True},
                {"name": "new", "allocation": 0.5, "config": {"label": "Buy now"}},
            ],
            "metrics": ["purchase"],
        },
    )
    client.call("POST", f"/experiments/{experiment['id']}/start")

    visitors = [f"{run}-{number}" for number in range(users)]
    for start in range(0, users, 1000):
        group = visitors[start : start + 1000]
        # A thousand users in one call; an application asks for one user, at the moment it needs to know, by
        # a GET of /experiments/<experiment>/assignment/<user>.
        answers = client.call("POST", "/assignments", {"user_ids": group, "experiments": [experiment["id"]]})
        buyers = [
            answer["user_id"]
            for answer in answers["assignments"]
            if luck.random() < BUYERS[answer["variant"]]
        ]
        orders = [
            # The id of an event is the caller's; sent twice, it still counts once.
            {"event_id": f"order-{buyer}", "user_id": buyer, "type": "purchase", "value": price(luck)}
            for buyer in buyers
        ]
        client.call("POST", "/events", {"events": orders})

    results: dict[str, Any] = client.call(
        "GET", f"/experiments/{experiment['id']}/results?primary_event_type=purchase"
    )
    return results


def price(luck: random.Random) -> float:
    """What somebody pays."""
    return round(luck.lognormvariate(3, 0.5), 2)


def show(results: dict[str, Any]) -> None:
    """Print the result as a table."""
    print(f"\n{results['name']}\n")
    print(f"{'variant':<12}{'users':>8}{'buyers':>8}{'rate':>9}{'revenue':>12}")
    for variant in results["variants"]:
        flat = results["variant_stats"][variant["variant_name"]]
        print(
            f"{variant['variant_name']:<12}{variant['assigned_count']:>8}{variant['primary_unique_users']:>8}"
            f"{variant['primary_conversion_rate']:>9.2%}{flat['metrics']['total_revenue']:>12,.2f}"
        )
    against = results["comparison"]
    interval = against["conversion_rate_diff_ci_95"]
    split = results["srm"]
    print(
        f"\n{against['treatment']} against {against['baseline']}: "
        f"{100 * against['conversion_rate_diff']:+.2f} points "
        f"[{100 * interval['diff_low']:+.2f}, {100 * interval['diff_high']:+.2f}], "
        f"lift {against['lift_percentage']:+.1f} %, p = {against['p_value']:.4g}"
    )
    print(f"Split as planned: {'no' if split['flagged'] else 'yes'} (p = {split['p_value']:.3g})")
    print(results["recommendation"])


def main() -> None:
    """Read the arguments, play, print."""
    parser = argparse.ArgumentParser(description="Play a whole experiment against a running server.")
    parser.add_argument("--url", default=os.environ.get("ASSAY_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--key", default=os.environ.get("ASSAY_KEY"), help="an admin or editor key")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    written = Path("assay-data/admin.key")
    key = arguments.key or (written.read_text(encoding="utf-8").strip() if written.exists() else None)
    if not key:
        give_up("Which key? Pass --key or set ASSAY_KEY; `assay serve` prints one on its first start.")
    show(play(Client(arguments.url, key), arguments.users, arguments.seed))


if __name__ == "__main__":
    main()
