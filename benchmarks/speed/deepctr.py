"""Default EmerG against a bare training loop over DeepCTR-Torch's DeepFM: CPU time of a million rows of MovieLens-1M, in one run.

    pip install --no-deps deepctr-torch
    python benchmarks/speed/deepctr.py

Both get the same encoded fields (those with several values as padded lists, which DeepCTR-Torch sums), embeddings of width 16, a
tower of 128 and 64 units, Adam, and batches of 512, in one thread and in turns. EmerG through the library's door, as shipped; the
loop is forward, cross entropy, backward and step, without regularization and without reading data.
"""

import argparse
import time
from collections.abc import Iterator
from itertools import islice

import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat  # type: ignore[import-not-found]
from deepctr_torch.models import DeepFM  # type: ignore[import-not-found]
from models import measurement, ratio
from recipe import PLAIN, ROWS, WARM_UP, steps
from torch import Tensor

from measurement import Measurement, emit, one_line
from newcomer.experiments.recipe import read_recipe
from newcomer.items.training.training_data import training_data
from newcomer.nn.ctr.field_embeddings import CategoricalSize

COMMAND = "python benchmarks/speed/deepctr.py"
TARGET = 1.5
BATCH, WIDTH, TOWER = 512, 16, (128, 64)


def fields() -> tuple[list[object], Tensor, Tensor]:
    """DeepCTR-Torch's columns, their values (float, as it wants them) and the labels, of the old items' events."""
    old = training_data(read_recipe("ml-1m").build_stream().old_log, torch.device("cpu"))
    clicks, _ = old.shuffled_chunk(0, 0, "")
    encoder = old.encoder
    items = [values[clicks.item] for values in encoder.items(old.items)]
    values = [clicks.item, *items, *clicks.values(torch.arange(len(clicks)))]
    sizes = [CategoricalSize(len(old.items)), *encoder.item_sizes(), *encoder.row_sizes()]
    columns: list[object] = []
    for number, (value, size) in enumerate(zip(values, sizes, strict=True)):
        name = f"field {number}"
        if not isinstance(size, CategoricalSize):
            columns.append(DenseFeat(name, size.count))
        elif value.ndim == 1:
            columns.append(SparseFeat(name, size.count, WIDTH))
        else:
            columns.append(VarLenSparseFeat(SparseFeat(name, size.count, WIDTH), value.shape[1], combiner="sum"))
    table = torch.cat([value.float().reshape(len(clicks), -1) for value in values], dim=1)
    return columns, table, clicks.label


def loop(columns: list[object], table: Tensor, label: Tensor) -> Iterator[None]:
    """Training steps of DeepCTR-Torch's DeepFM."""
    model = DeepFM(columns, columns, dnn_hidden_units=TOWER, l2_reg_linear=0, l2_reg_embedding=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    while True:
        for rows in torch.split(torch.randperm(len(table)), BATCH):
            loss = torch.nn.functional.binary_cross_entropy(model(table[rows]).squeeze(1), label[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield


def measurements(turns: int) -> Iterator[Measurement]:
    torch.set_num_threads(1)
    trained = {"emerg": steps(BATCH, PLAIN), "deepctr": loop(*fields())}
    seconds: dict[str, list[float]] = {name: [] for name in trained}
    for steps_of in trained.values():
        next(islice(steps_of, WARM_UP, None))
    for _ in range(turns):
        for name, steps_of in trained.items():
            begin = time.process_time()
            next(islice(steps_of, ROWS // BATCH - 1, None))
            seconds[name].append((time.process_time() - begin) / ROWS * 1e6)
    value, std = ratio(seconds["emerg"], seconds["deepctr"])
    title = f"pre-training in batches of {BATCH}, EmerG / DeepCTR-Torch's DeepFM"
    print({name: [round(one, 1) for one in values] for name, values in seconds.items()})
    yield measurement(title, round(value, 2), COMMAND, TARGET, round(std, 2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    with one_line():
        emit(measurements(parser.parse_args().turns))
