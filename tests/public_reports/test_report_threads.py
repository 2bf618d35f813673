"""Several threads ask one model, or models on one backbone: every answer is the one that a single thread is given."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from newcomer.backbones.backbone import Backbone
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.examples import Examples
from newcomer.errors import LearnerError
from newcomer.nn.lora.decoupled_linear import AdaptedLinear
from newcomer.nn.lora.input_moments import InputMoments
from newcomer.registry import LEARNERS
from newcomer.streams.stage import Stage
from newcomer.training.fit import evaluating

Folder = Callable[[str], Path]

METHODS: dict[str, Any] = {name: kind for name, kind in LEARNERS.items() if issubclass(kind, ClassLearner)}
ONE_OF_EACH_ADAPTER = [
    pytest.param(name, marks=() if name in {"sd-lora", "full-fine-tuning", "l2p", "ranpac"} else pytest.mark.slow)
    for name in METHODS
]


def trained(name: str, backbone: Backbone | str, tasks: list[Examples]) -> ClassLearner:
    whole: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-3}
    rates: dict[str, dict[str, Any]] = {
        "frozen": {},
        "klda": {"projection_dim": 50},
        "full-fine-tuning": whole,
        "slca": whole,
        "e2-lora": whole,
    }
    how = rates.get(name, {"epochs": 2, "learning_rate": 0.05})
    learner: ClassLearner = METHODS[name](backbone, **how)
    return learner.learn(tasks[0]).learn(tasks[1])


def together(work: Callable[[int], None], threads: int = 3) -> None:
    """The same work by several threads at once; what one of them raises is raised."""
    raised: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    several = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    if raised:
        raise raised[0]


def wrong(ask: Sequence[Callable[[], Tensor]], calls: int = 20) -> int:
    """How many of three threads' calls, which take turns with what they `ask`, are not answered to the bit as one thread is."""
    expected, bad = [one() for one in ask], []

    def work(number: int) -> None:
        for turn in range(calls):
            which = (number + turn) % len(ask)
            bad.append(not torch.equal(ask[which](), expected[which]))

    together(work)
    assert len(bad) == 3 * calls
    return sum(bad)


@pytest.mark.parametrize("name", ONE_OF_EACH_ADAPTER)
def test_three_threads_get_the_predictions_of_one(name: str, tasks: list[Examples]) -> None:
    """peft #804: a server's threads share one adapted model; 78 of 120 answers were wrong, without an exception."""
    learner = trained(name, "micro-vit", tasks)
    assert wrong([lambda: learner.logits(tasks[0].inputs), lambda: learner.logits(tasks[1].inputs[:5])]) == 0


def test_learners_on_one_backbone_do_not_interfere(tasks: list[Examples]) -> None:
    """ultralytics #5302: models that are used by several threads at once give each other's results."""
    backbone = Backbone("micro-vit")
    learners = [trained(name, backbone, tasks) for name in METHODS]
    ask = [partial(learner.logits, tasks[0].inputs) for learner in learners]
    expected = [one() for one in ask]
    assert not any(torch.equal(expected[i], expected[j]) for i in range(len(expected)) for j in range(i))
    assert wrong(ask, calls=2 * len(ask)) == 0


@pytest.mark.parametrize("name", ONE_OF_EACH_ADAPTER)
def test_one_learner_predicts_while_another_trains_on_the_same_backbone(name: str, tasks: list[Examples]) -> None:
    """fastai #2228: predictions in a thread beside the training were those of half-changed weights; training as well."""
    backbone = Backbone("micro-vit")
    answering = SDLoRA(backbone, epochs=2, learning_rate=0.05).learn(tasks[0]).learn(tasks[1])
    expected, alone = answering.logits(tasks[0].inputs), trained(name, Backbone("micro-vit"), tasks)
    done, bad, learned = threading.Event(), [], []

    def work(number: int) -> None:
        if number == 0:
            try:
                learned.append(trained(name, backbone, tasks))
            finally:
                done.set()
        while not done.is_set():
            bad.append(not torch.equal(answering.logits(tasks[0].inputs), expected))

    together(work, 2)
    assert len(bad) > 1
    assert not any(bad)
    assert torch.equal(learned[0].logits(tasks[1].inputs), alone.logits(tasks[1].inputs))


def test_a_learner_in_training_refuses_other_threads(tasks: list[Examples]) -> None:
    """fastai #2228, of one learner: what is half trained refuses other threads in place of an answer of neither model."""
    learner = SDLoRA("micro-vit", epochs=2).learn(tasks[0])
    expected = learner.logits(tasks[0].inputs)
    steps = learner.fit_stage(Stage("task 1", tasks[1], {}))
    next(steps)
    refused: list[bool] = []

    def work(_: int) -> None:
        for use in (lambda: learner.logits(tasks[0].inputs), lambda: learner.learn(tasks[2])):
            with pytest.raises(LearnerError, match="is being trained by another thread"):
                use()
            refused.append(True)

    together(work, 2)
    assert len(refused) == 4
    learner.logits(tasks[0].inputs)  # the training thread may predict
    steps.close()  # type: ignore[attr-defined]
    together(lambda _: torch.testing.assert_close(learner.logits(tasks[0].inputs), expected), 2)


@pytest.mark.parametrize("folder", ["sentence-transformers/all-MiniLM-L6-v2", "bert"])
def test_texts_of_every_length_are_read_by_several_threads(
    folder: str, tiny: Folder, questions: list[Examples]
) -> None:
    """A tokenizer's padding and length are its state: two threads that asked MiniLM were .59 off in 4 answers of 200."""
    backbone = Backbone(folder if "/" in folder else str(tiny(folder)))
    several = [str(text) for task in questions for text in task.inputs]
    long = [" ".join(several * 20), "my card"]
    rust = backbone.encoder._tokenizer
    before = rust.truncation, rust.padding
    read: list[Any] = []

    def work(_: int) -> None:
        read.extend((backbone.preprocess(long), backbone.preprocess(["my card"])))

    together(work)
    assert (rust.truncation, rust.padding) == before
    shapes = {tuple(one["input_ids"].shape) for one in read}
    assert len(shapes) == 2
    assert (2, backbone.max_tokens) in shapes


def test_nothing_of_a_pass_is_left_in_another_thread(tasks: list[Examples]) -> None:
    """What a layer multiplies by belongs to the thread in whose pass it is lent."""
    learner = trained("sd-lora", "micro-vit", tasks)
    layers = [layer for layer in learner.backbone.model.modules() if isinstance(layer, AdaptedLinear)]
    moments = InputMoments(learner.backbone.model, learner.backbone.projections)
    assert isinstance(learner, SDLoRA)
    encoded = learner.backbone.encode(tasks[0].inputs)
    found: list[bool] = []
    with evaluating(learner.backbone), learner.lora.applied(), moments.watched():
        assert all(layer.override is not None for layer in layers)

        def work(_: int) -> None:
            found.extend(layer.override is None for layer in layers)
            with evaluating(learner.backbone):
                learner.backbone(encoded)

        together(work, 1)
    assert found
    assert all(found)
    assert not any(moment.any() for moment in moments.found)


def test_modes_are_given_back_by_the_last_thread_to_leave() -> None:
    """fastai #2228: one thread's `train()` beside another's `eval()` left dropout on in the midst of a pass."""
    net, inside = torch.nn.Dropout(), threading.Barrier(2)
    left = threading.Event()

    def work(number: int) -> None:
        with evaluating(net):
            inside.wait(5)
            if number == 1:
                assert left.wait(5)
                assert not net.training
        left.set()

    together(work, 2)
    assert net.training
