"""Wall-clock time of `newcomer --help` and of `newcomer score` with one request, as multiples of `python -c "import torch"`.

python benchmarks/speed/startup.py [--repeats 15]

The commands take turns, so that a busy machine slows all of them alike; the medians are compared.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models import measurement

from measurement import emit
from newcomer.data.io.log_reader import read_log
from newcomer.data.schema import Field, Schema
from newcomer.items.methods.emerg import EmerG

COMMAND = "python benchmarks/speed/startup.py"
TARGETS = {"newcomer --help": 1.0, "newcomer score": 1.3}
SCHEMA = Schema("item", "user", "click", "time", (Field("genre", "item"), Field("device", "context")))
COLUMNS = "item,user,genre,device,click,time"


def write_model(folder: Path) -> None:
    """A click model of 20 items in `folder/model`, trained for one epoch, and a request in `folder/request.jsonl`."""
    draw = random.Random(0)
    rows = [f"i{n % 20},u{n % 50},g{n % 20 % 4},d{n % 3},{draw.randrange(2)},{n}" for n in range(2000)]
    (folder / "log.csv").write_text("\n".join([COLUMNS, *rows]) + "\n", encoding="utf-8")
    log = read_log(str(folder / "log.csv"), SCHEMA)
    EmerG(log.schema, pretrain_epochs=1, meta_epochs=1).learn(log).save(folder / "model")
    request = {"item": "i7", "user": "u1", "device": "d1"}
    (folder / "request.jsonl").write_text(json.dumps(request) + "\n", encoding="utf-8")


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(repeats: int) -> None:
    newcomer = [sys.executable, "-m", "newcomer"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "newcomer --help": [*newcomer, "--help"],
            "newcomer score": [*newcomer, "score", str(folder / "model"), str(folder / "request.jsonl")],
        }
        for words in commands.values():  # byte code and the file cache
            seconds(words)
        times: dict[str, list[float]] = {title: [] for title in commands}
        for _ in range(repeats):
            for title, words in commands.items():
                times[title].append(seconds(words))
    torch_seconds = statistics.median(times["import torch"])
    for title, values in times.items():
        print(
            f"{title}: {statistics.median(values):.3f} s, {statistics.median(values) / torch_seconds:.2f} × import torch"
        )
    emit(
        measurement(
            f"start-up of {title}",
            round(statistics.median(times[title]) / torch_seconds, 3),
            COMMAND,
            target,
            round(statistics.stdev(times[title]) / torch_seconds, 3),
            "× import torch",
        )
        for title, target in TARGETS.items()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    main(parser.parse_args().repeats)
