"""Files of `deploy/`: each names what there is."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from newcomer.cli.program import load_command
from newcomer.server.metrics import Metrics

DEPLOY = Path(__file__).parents[1] / "deploy"
METRIC = re.compile(r"\bnewcomer_\w+")
UNIT = DEPLOY / "newcomer.service"


def exported(registry: CollectorRegistry) -> set[str]:
    """Names of all samples that these metrics can have."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


def serve_options(words: Sequence[str]) -> dict[str, Any]:
    """What `newcomer serve` reads in this command line; an unknown option is an error."""
    assert Path(words[0]).name == "newcomer"
    assert words[1] == "serve"
    return dict(load_command("serve").make_context("serve", list(words[2:])).params)


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    metrics = exported(Metrics().registry)
    shown = [
        name for panel in board["panels"] for target in panel["targets"] for name in METRIC.findall(target["expr"])
    ]
    assert set(shown) <= metrics
    assert {METRIC.search(name)[0].rsplit("_", 1)[0] for name in shown} == {name.rsplit("_", 1)[0] for name in metrics}  # type: ignore[index]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"])))
    assert used <= variables | {"__rate_interval"}
    labels = {name for metric in vars(Metrics()).values() for name in getattr(metric, "_labelnames", ())}
    by = [name for group in re.findall(r"by \(([^)]*)\)", json.dumps(board["panels"])) for name in group.split(", ")]
    assert set(by) <= labels | {"le"}


def test_compose_starts_the_service_once_the_database_can_be_used() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service, database = compose["services"]["service"], compose["services"]["database"]
    options = serve_options(service["command"])
    assert options["states"] == f"postgresql+psycopg://{database['environment']['POSTGRES_USER']}@database/items"
    assert service["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert "pg_isready" in database["healthcheck"]["test"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert options["token_file"] == Path("/run/secrets") / service["secrets"][0]
    mounted = {
        volume.rsplit(":")[-2] if volume.endswith(":ro") else volume.rsplit(":")[-1] for volume in service["volumes"]
    }
    assert {str(options["folder"]), *map(str, options["stores"])} <= mounted
    named = {volume.split(":")[0] for one in (service, database) for volume in one["volumes"] if volume[0] not in "$./"}
    assert named == set(compose["volumes"])
    assert set(service["secrets"]) == set(compose["secrets"])
    assert (DEPLOY / service["build"]["context"] / "Dockerfile").exists()


def unit() -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=True)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(re.sub(r"^Environment=.*\n", "", UNIT.read_text(encoding="utf-8"), flags=re.MULTILINE))
    return found


def test_the_unit_starts_the_service_as_a_user_of_its_own() -> None:
    service = unit()["Service"]
    options = serve_options(shlex.split(service["ExecStart"]))
    assert service["User"] != "root"
    assert options["folder"] == Path("${STATE_DIRECTORY}/own")  # the rest of the disk is read-only
    assert options["token_file"] == Path("${CREDENTIALS_DIRECTORY}") / service["LoadCredential"].partition(":")[0]
    assert unit()["Install"]["WantedBy"] == "multi-user.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    command = shlex.split(unit()["Service"]["ExecStart"])[0]
    there = tmp_path / UNIT.name
    there.write_text(UNIT.read_text(encoding="utf-8").replace(command, "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", there], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
