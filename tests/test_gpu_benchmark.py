"""The benchmark for GPUs runs at toy size on CPUs, so that it is ready where a GPU is."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_benchmark_for_gpus_runs_at_toy_size() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--toy"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(measured) == 13
    assert all(math.isfinite(one["value"]) and one["value"] > 0 for one in measured)
