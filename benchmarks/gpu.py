"""What a GPU makes of both families: training and inference of SD-LoRA on ViT-B/16 beside others, and pre-training of EmerG.

    python benchmarks/gpu.py            # on a GPU; the weights are random, no data is needed
    python benchmarks/gpu.py --toy      # the same at toy size, on CPUs as well: only shows that it runs

Steps of SD-LoRA, of PEFT's plain LoRA and of full fine-tuning take turns on the same images on the device, in bf16. Their
operations a second, counted as a forward pass and as many for every gradient (of activations, and of all weights where these are
trained), are a share of the rate of one large matrix product in bf16, measured between them. Then images pass through the door,
`SDLoRA.learn`, and rows of a click log through `EmerG.learn`, there and on one core of the processor.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTConfig, ViTImageProcessor, ViTModel

sys.path.insert(0, str(Path(__file__).parent / "speed"))
sys.path.insert(0, str(Path(__file__).parent / "scale"))
from models import RANK, bank_of, images, query_value
from users import SCHEMA, log_of

from measurement import DATA_MISSING, Better, Measurement, emit
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.experiments.run import commit, machine
from newcomer.items.methods.emerg import EmerG
from newcomer.training.learner import Step

COMMAND = "python benchmarks/gpu.py"


@dataclass(frozen=True)
class Size:
    """How much is computed."""

    encoder: Mapping[str, int]
    batch: int
    product: int
    """Rows of the square matrices whose product gives the rate of the device."""
    turns: int
    images: int
    rows: int
    rows_on_core: int
    users: int


FULL = Size(
    {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224, "patch_size": 16},
    batch=256,
    product=8192,
    turns=15,
    images=6400,
    rows=4_000_000,
    rows_on_core=200_000,
    users=100_000,
)
TOY = Size(
    {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 8,
        "num_hidden_layers": 2,
    },
    batch=8,
    product=64,
    turns=2,
    images=40,
    rows=20_000,
    rows_on_core=10_000,
    users=100,
)


def encoder(size: Size, device: torch.device) -> ViTModel:
    """A frozen vision transformer with random weights."""
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**size.encoder), add_pooling_layer=False)  # type: ignore[arg-type]
    model.requires_grad_(False)
    model.train(False)
    return model.to(device)  # type: ignore[arg-type, no-any-return]


def step(
    model: Any,
    trained: list[nn.Parameter],
    x: Tensor,
    applied: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Callable[[], object]:
    """A training step in bf16 by Adam."""
    optimizer = torch.optim.Adam(trained, lr=1e-6)

    def run() -> None:
        optimizer.zero_grad()
        with applied(), torch.autocast(x.device.type, torch.bfloat16):
            loss: Tensor = model(pixel_values=x).last_hidden_state[:, 0].float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def forward(
    model: Any, x: Tensor, applied: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Callable[[], object]:
    """A forward pass in bf16."""

    @torch.inference_mode()
    def run() -> None:
        with applied(), torch.autocast(x.device.type, torch.bfloat16):
            model(pixel_values=x)

    return run


def steps(size: Size, device: torch.device) -> dict[str, Callable[[], object]]:
    """Training steps and forward passes by name, all on the same images."""
    x = images(size.batch, size.encoder["image_size"]).to(device)
    plain, ours, whole, theirs = (encoder(size, device) for _ in range(4))
    bank = bank_of(ours, 20, leave_open=True).to(device)
    bank.up, bank.down = ([part.to(device) for part in parts] for parts in (bank.up, bank.down))
    lora = get_peft_model(theirs, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=query_value(theirs)))
    whole.requires_grad_(True)
    square = torch.randn(size.product, size.product, device=device, dtype=torch.bfloat16)
    return {
        "SD-LoRA": step(ours, [p for group in bank.trainable().values() for p in group], x, bank.applied),
        "PEFT's LoRA": step(lora, [p for p in lora.parameters() if p.requires_grad], x),
        "full fine-tuning": step(whole, list(whole.parameters()), x),
        "merged": forward(ours, x, bank.applied),
        "plain": forward(plain, x),
        "product": partial(torch.mm, square, square),
    }


def in_turns(actions: Mapping[str, Callable[[], object]], turns: int, device: torch.device) -> dict[str, float]:
    """Median of the seconds of each action, the actions in turns, after three calls each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(turns + 3):
        for name, action in actions.items():
            wait(device)
            begin = time.perf_counter()
            action()
            wait(device)
            if turn >= 3:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def silence() -> None:
    """No warnings of libraries between the measurements."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def operations(action: Callable[[], object]) -> float:
    """Floating-point operations of the matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())


def rate(learn: Callable[[Callable[[Step], None]], object], part: str) -> float:
    """Steps a second of this part of training, without its first fifth."""
    moments: list[float] = []

    def note(step: Step) -> None:
        if step.part == part:
            moments.append(time.perf_counter())

    learn(note)
    later = moments[len(moments) // 5 :]
    return (len(later) - 1) / (later[-1] - later[0])


def images_a_second(size: Size, device: torch.device, folder: Path) -> float:
    """Of `SDLoRA.learn`, which reads its images from an array."""
    encoder(size, torch.device("cpu")).save_pretrained(folder)
    side = size.encoder["image_size"]
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (size.images, side, side, 3), dtype=np.uint8)
    examples = Examples(pixels, [f"class {n % 10}" for n in range(size.images)])
    learner = SDLoRA(str(folder), batch_size=size.batch, epochs=2, precision="bf16", cache_gib=8.0, device=str(device))
    return size.batch * rate(lambda note: learner.learn(examples, progress=note), learner.next_stage)


def rows_a_second(size: Size, device: torch.device, rows: int) -> float:
    """Of `EmerG.learn` in pre-training, at batches of 4,096."""
    batch = min(4096, rows // 10)
    learner = EmerG(SCHEMA, batch_size=batch, pretrain_epochs=1, calibrate=False, device=str(device))
    log = log_of(size.users, rows)
    return batch * rate(lambda note: learner.learn(log, progress=note), "pretrain")


def measurements(size: Size, device: torch.device) -> Iterator[Measurement]:
    def result(
        name: str, value: float, unit: str, target: float | None = None, better: Better = "higher"
    ) -> Measurement:
        return Measurement(name, float(f"{value:.4g}"), unit, COMMAND, [0], machine(), commit(), target, better=better)

    actions = steps(size, device)
    pass_, product = operations(actions["plain"]), operations(actions["product"])
    seconds = in_turns(actions, size.turns, device)
    peak = product / seconds["product"]
    yield result("GPU, matrix product in bf16", peak / 1e12, "TFLOP/s")
    for name, passes in {"SD-LoRA": 2, "PEFT's LoRA": 2, "full fine-tuning": 3}.items():
        yield result(f"GPU, training step, {name}", size.batch / seconds[name], "images/s")
        target = 0.4 if name == "SD-LoRA" else None
        share = passes * pass_ / seconds[name] / peak
        yield result(f"GPU, training step, {name}, share of the product's rate", share, "1", target)
    yield result(
        "GPU, training step, SD-LoRA / PEFT's LoRA", seconds["PEFT's LoRA"] / seconds["SD-LoRA"], "ratio", 0.98
    )
    yield result("GPU, inference, merged / plain", seconds["merged"] / seconds["plain"], "ratio", 1.01, "lower")
    with TemporaryDirectory() as folder:
        yield result("GPU, SDLoRA.learn", images_a_second(size, device, Path(folder)), "images/s")
    there = rows_a_second(size, device, size.rows)
    torch.set_num_threads(1)
    core = rows_a_second(size, torch.device("cpu"), size.rows_on_core)
    yield result("GPU, EmerG.learn, pre-training", there, "rows/s")
    yield result("one core, EmerG.learn, pre-training", core, "rows/s")
    yield result("EmerG.learn, pre-training, GPU / one core", there / core, "ratio", 20.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="toy size; nothing that it measures means anything")
    toy = parser.parse_args().toy
    silence()
    if not torch.cuda.is_available() and not toy:
        print("benchmarks/gpu.py: no GPU here; --toy runs it on CPUs at toy size", file=sys.stderr)
        sys.exit(DATA_MISSING)
    emit(measurements(TOY if toy else FULL, torch.device("cuda" if torch.cuda.is_available() else "cpu")))
