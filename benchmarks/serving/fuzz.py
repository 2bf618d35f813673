"""Requests that the service should survive: what schemathesis makes of its OpenAPI, alone and in sequences, and random bytes.

    pip install schemathesis
    python benchmarks/serving/fuzz.py --requests 10000

A click model and a classifier are served by a process of its own. Counted are answers of 5xx, answers that are not what OpenAPI
describes, tracebacks in the log, and how much memory the process has gained since the first tenth. A body that fits its description
may be refused, for what the model does not know. Exit code 1 if the first three are not zero.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from films import trained
from newcomer import FrozenBackbone
from newcomer.data.datasets.digits import digits
from serving import service

SECONDS = 60
"""In which a request is answered on a crowded machine."""

STEPS = 10
"""Requests of one sequence."""
SHARES = {"bytes": 0.2, "sequences": 0.3}
"""Shares of the requests; the rest are single requests."""


@dataclass
class Found:
    """What came of the requests."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    """One example for each kind of failure."""

    def count(self, status: int) -> None:
        self.requests += 1
        self.statuses[status] += 1

    def check(self, case: Any, response: Any) -> None:
        """Count an answer, and note how it differs from what is described."""
        self.count(response.status_code)
        try:
            case.validate_response(response, excluded_checks=[positive_data_acceptance])
        except FailureGroup as group:
            for failure in group.exceptions:
                self.note(case, response, failure)
        except Failure as failure:
            self.note(case, response, failure)

    def note(self, case: Any, response: Any, failure: BaseException) -> None:
        title = getattr(failure, "title", type(failure).__name__)
        key = f"{case.operation.label}: {response.status_code} {title}"
        self.failures.setdefault(key, f"{case.as_curl_command()}\n{failure}")

    @property
    def server_errors(self) -> int:
        return sum(count for status, count in self.statuses.items() if status >= 500)


def single_requests(schema: Any, requests: int, found: Found) -> None:
    """Cases of every operation, valid and invalid ones."""
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:

        @settings(_settings(max(1, requests // len(operations))))
        @given(operation.as_strategy())
        def run(case: Any) -> None:
            found.check(case, case.call(timeout=SECONDS))

        run()


def sequences(schema: Any, requests: int, found: Found) -> None:
    """Sequences of requests in which answers of one are used by the next."""
    machine: Any = schema.as_state_machine()
    end = found.requests + requests

    class Counted(machine):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"timeout": SECONDS}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            found.check(case, response)

    for number in range(requests):
        if (left := end - found.requests) <= 0:
            break
        options = settings(_settings(max(1, left // STEPS)), derandomize=False, stateful_step_count=STEPS)
        with suppress(Flaky):  # what may follow depends on the answers, which change as the service fills
            hypothesis.seed(number)(Counted).run(settings=options)


def random_bytes(client: httpx.Client, requests: int, found: Found, seed: int) -> None:
    """Bodies, paths and headers of random bytes, and valid beginnings with random ends."""
    chance = random.Random(seed)
    beginnings = [
        b"",
        b'{"items": [',
        b'{"events": [{"film": "',
        b'{"inputs": ["',
        b'--x\r\nContent-Disposition: form-data; name="files"',
    ]
    types = ["application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"]
    for _ in range(requests):
        path = chance.choice(
            ["/items", "/score", "/events", "/classify", f"/items/{_escaped(chance)}", f"/{_escaped(chance)}"]
        )
        method = chance.choice(["POST", "POST", "POST", "GET", "DELETE", "PUT"])
        body = chance.choice(beginnings) + chance.randbytes(chance.choice([0, 1, 10, 100, 10_000]))
        headers = {
            "content-type": chance.choice(types),
            "x-request-id": chance.randbytes(4).hex() * chance.choice([1, 20]),
        }
        found.count(client.request(method, path, content=body, headers=headers).status_code)


def _escaped(chance: random.Random) -> str:
    return "".join(f"%{byte:02x}" for byte in chance.randbytes(8))


def _settings(examples: int) -> settings:
    quiet = [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ]
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=quiet,
        phases=[Phase.generate],
    )


def memory(process: int) -> float:
    """Resident memory of a process in MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def stores(folder: Path) -> list[str]:
    """A click model of films and a classifier of digits."""
    FrozenBackbone("micro-vit").learn(digits()[0].select(list(range(100)))).save(folder / "digits")
    return [str(trained(folder / "films")), str(folder / "digits")]


def run(requests: int, seed: int, folder: Path) -> int:
    found = Found()
    with service(*stores(folder), log=folder / "log") as (client, process):
        schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
        parts: dict[str, Callable[[int], None]] = {
            "bytes": lambda count: random_bytes(client, count, found, seed),
            "sequences": lambda count: sequences(schema, count, found),
            "single": lambda count: single_requests(schema, count, found),
        }
        first = requests // 10
        random_bytes(client, first // 2, found, seed + 1)
        single_requests(schema, first // 2, found)
        before = memory(process.pid)
        for name, part in parts.items():
            share = SHARES.get(name, 1 - sum(SHARES.values()))
            part(round(share * (requests - first)))
            print(f"{name}: {found.requests:,} requests so far, {memory(process.pid):.0f} MiB", flush=True)
        gained = memory(process.pid) - before
    tracebacks = (folder / "log").read_text(encoding="utf-8", errors="replace").count("Traceback")
    for key, example in found.failures.items():
        print(f"── {key}\n{example}\n")
    print(f"{found.requests:,} requests: {dict(sorted(found.statuses.items()))}")
    print(
        f"{found.server_errors} of 5xx, {len(found.failures)} kinds of answers that are not described, {tracebacks} tracebacks, "
        f"{gained:+.0f} MiB of {before:.0f}"
    )
    return int(bool(found.server_errors or found.failures or tracebacks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(run(args.requests, args.seed, Path(name)))
