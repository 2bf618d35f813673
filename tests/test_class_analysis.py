"""Analysis of SD-LoRA models: equal to direct computations with weights and evaluation sets."""

import json
import re
from collections.abc import Callable, Generator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch.nn import functional as F

from newcomer.classes.analysis import FRACTIONS, _weighing, analyse
from newcomer.classes.learner import ClassLearner
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.classes.methods.sequential_lora import SequentialLoRA
from newcomer.data.examples import Examples
from newcomer.errors import DataWarning, LearnerError, StoreError
from newcomer.experiments.report.class_analysis import write_class_analysis
from newcomer.nn.lora.decoupled_lora import Sharing
from newcomer.settings import Json
from newcomer.training.learner import Step

Folder = Callable[[str], Path]
Found = TypeVar("Found")
SETTINGS: dict[str, Any] = {"rank": 2, "epochs": 6, "batch_size": 4, "learning_rate": 0.02}


def ended(steps: Generator[Step, None, Found]) -> Found:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Found = end.value
            return found


def look(learner: ClassLearner, examples: Examples | None = None) -> dict[str, Json]:
    return ended(analyse(learner, examples))


def together(parts: list[Examples]) -> Examples:
    return Examples([x for part in parts for x in part.inputs], [name for part in parts for name in part.labels])


def trained(tiny: Folder, tasks: list[Examples], **settings: Any) -> SDLoRA:
    learner = SDLoRA(str(tiny("vit")), **{**SETTINGS, **settings})
    for task in tasks:
        learner.learn(task)
    return learner


def weights(learner: SDLoRA) -> torch.Tensor:
    """All adapted weights as one long vector, formed."""
    model, names = learner.backbone.model, learner.backbone.projections
    frozen = [model.get_parameter(f"{name}.frozen.weight").double() for name in names]
    return torch.cat([(w + learner.lora.update(p).double()).flatten() for p, w in enumerate(frozen)]).detach()


@pytest.mark.parametrize("magnitudes", ["shared", "projection"])
def test_distances_are_those_of_the_formed_weights(
    magnitudes: Sharing, tasks: list[Examples], tiny: Folder, tmp_path: Path
) -> None:
    learner = trained(tiny, tasks, magnitude_sharing=magnitudes)
    with pytest.warns(DataWarning, match="count twice"):
        learner.learn(tasks[0])  # known classes only: moves nothing
    learner.save(tmp_path / "model")
    states = torch.stack([weights(SDLoRA.load(tmp_path / "model", stages=stages)) for stages in range(4)])
    found = look(learner)
    expected = torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(torch.tensor(found["distances"]).double(), expected, rtol=1e-4, atol=1e-6)
    assert found["norm"] == pytest.approx(states[0].norm().item())
    assert found["tasks"] == found["directions"] == ["task 0", "task 1", "task 2"]


def test_a_direction_dropped_for_its_fit_still_moved_the_weights(tasks: list[Examples], tiny: Folder) -> None:
    found = look(trained(tiny, tasks[:2], kd_threshold=1.0))
    assert found["tasks"] == ["task 0", "task 1"]
    assert found["directions"] == ["task 0"]
    assert [len(part["after"]) for part in found["training"]] == [1, 1]
    assert found["distances"][1][2] == pytest.approx(abs(found["distances"][0][1] - found["distances"][0][2]), rel=1e-3)


def test_equal_directions_have_cosine_1_and_directions_at_right_angles_0(tasks: list[Examples], tiny: Folder) -> None:
    learner = trained(tiny, tasks[:1])
    bank = learner.lora
    first = bank.direction(0)
    aside = [(up - a @ (a.T @ up), down) for up, down in first for a in [torch.linalg.qr(up).Q]]
    assert max(up.abs().max().item() for up, _ in aside) < 1e-5
    other = [(torch.linalg.qr(torch.cat([up, torch.eye(len(up))], 1)).Q[:, 2:4], down) for up, down in first]
    nothing = [(0 * up, down) for up, down in first]
    for direction in (first, other, nothing):
        bank.append(direction)
        bank.set_magnitudes(torch.cat([bank.magnitudes.detach(), torch.ones(1, 1)]))
    found = look(learner)
    expected = [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0] * 4]
    torch.testing.assert_close(torch.tensor(found["cosines"]), torch.tensor(expected), rtol=0, atol=1e-5)
    assert found["depths"] == pytest.approx([1 / 6] * 4, abs=1e-5)  # one pair of six, in every projection


def test_training_yields_every_step(tasks: list[Examples], tiny: Folder) -> None:
    learner = trained(tiny, tasks, weight_averaging=0.0)  # with it the end is not where the last step was
    for place, part in enumerate(look(learner)["training"]):
        assert part["step"] == list(range(1, 19))
        assert [len(row) for row in part["magnitudes"]] == [place] * 18
        assert len(part["after"]) == place + 1
        assert part["magnitudes"][-1] == pytest.approx(part["after"][:-1])
        assert all(0 <= residual <= 1 + 1e-6 for residual in part["residual"])


@pytest.mark.parametrize("head", ["linear", "lda", "kernel"])
def test_the_interpolation_ends_at_the_models_after_both_tasks(
    head: str, tasks: list[Examples], tiny: Folder, tmp_path: Path
) -> None:
    learner = trained(tiny, tasks, head=head)
    learner.save(tmp_path / "model")
    before = learner.lora.magnitudes
    said_before = learner.logits(tasks[0].inputs)
    lines = look(learner, together(tasks))["line"]
    assert [(pair["from"], pair["to"]) for pair in lines] == [("task 0", "task 1"), ("task 1", "task 2")]
    for place, pair in enumerate(lines):
        assert pair["fraction"] == FRACTIONS
        assert pair["examples"] == {"old": 12, "new": 12}
        end = SDLoRA.load(tmp_path / "model", stages=place + 2, head="linear")
        for fraction, stages in ((0.0, place + 1), (1.0, place + 2)):
            model = SDLoRA.load(tmp_path / "model", stages=stages)
            for side, task in (("old", tasks[place]), ("new", tasks[place + 1])):
                features = model.features(task.inputs)
                known = len(end.classes)
                logits = {
                    "trained rows": F.linear(features, *end.linear_classifier()),
                    "end head": learner._logits(features)[:, :known],
                }
                for name, found in logits.items():
                    said = [end.classes[k] for k in found.argmax(1).tolist()]
                    right = sum(a == b for a, b in zip(said, task.labels, strict=True)) / len(task)
                    assert pair[name][side][FRACTIONS.index(fraction)] == right
                if fraction == 1:
                    assert pair["trained rows"][side][FRACTIONS.index(1.0)] == end.evaluate(task)["accuracy"]
    assert learner.lora.magnitudes is before
    assert torch.equal(learner.logits(tasks[0].inputs), said_before)


def test_replaced_magnitudes_are_restored_after_an_error(tasks: list[Examples], tiny: Folder) -> None:
    bank = trained(tiny, tasks[:1]).lora
    own = bank.magnitudes
    with pytest.raises(KeyError), _weighing(bank, torch.zeros(1, 1)):
        raise KeyError
    assert bank.magnitudes is own


def test_the_interpolation_leaves_out_forgotten_classes_and_those_without_examples(
    tasks: list[Examples], tiny: Folder
) -> None:
    learner = trained(tiny, tasks)
    learner.forget(tasks[1].labels[0])
    (first, second) = look(learner, together(tasks))["line"]
    assert (first["examples"], second["examples"]) == ({"old": 12, "new": 6}, {"old": 6, "new": 12})
    assert look(learner, together([tasks[0], tasks[2]]))["line"] == []


def test_without_data_there_is_no_interpolation(tasks: list[Examples], tiny: Folder, tmp_path: Path) -> None:
    found = look(trained(tiny, tasks[:2]))
    assert found["line"] is None
    write_class_analysis(found, tmp_path / "page")
    written = {path.name for path in (tmp_path / "page").iterdir()}
    assert written == {"index.html", "analysis.json", "distances.svg", "training.svg", "cosines.svg"}
    assert "Finding 3" not in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


def test_one_task_has_a_page_of_what_there_is(tasks: list[Examples], tiny: Folder, tmp_path: Path) -> None:
    found = look(trained(tiny, tasks[:1]), tasks[0])
    assert found["line"] == []
    write_class_analysis(found, tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "pairs need a second task" in page
    assert not (tmp_path / "cosines.svg").exists()


def test_without_an_earlier_state_there_is_one_head_less(tasks: list[Examples], tiny: Folder, tmp_path: Path) -> None:
    """All else is known from what the tasks added."""
    learner = trained(tiny, tasks)
    whole = look(learner, together(tasks))
    learner.entries[:2] = [entry.without_state() for entry in learner.entries[:2]]
    found = look(learner, together(tasks))
    first, second = found["line"]
    assert "trained rows" in second
    assert {**whole["line"][0], **first} == whole["line"][0]
    assert "trained rows" not in first
    assert {**found, "line": None} == {**whole, "line": None}
    write_class_analysis(found, tmp_path)
    assert (tmp_path / "line.svg").exists()


@pytest.mark.parametrize("kind", [FrozenBackbone, SequentialLoRA])
def test_other_models_have_no_directions(kind: Callable[[str], ClassLearner], tiny: Folder) -> None:
    with pytest.raises(LearnerError, match=r"has no directions to look into; give one of 'sd-lora'$"):
        look(kind(str(tiny("vit"))))


def test_what_cannot_be_analysed_is_one_line(tasks: list[Examples], tiny: Folder) -> None:
    with pytest.raises(LearnerError, match="no task has changed the weights yet"):
        look(SDLoRA(str(tiny("vit"))))
    with pytest.raises(LearnerError, match="none of the examples is of a class that the model knows"):
        look(trained(tiny, tasks[:1]), tasks[1])


def by_hand(tasks: int) -> dict[str, Json]:
    """Weights on a line, 1 apart and 50 from the frozen ones; the old task loses a fifth in the last pair."""
    names = [f"task {t}" for t in range(tasks)]
    places = [0.0, *(50.0 + t for t in range(tasks))]
    kept, lost = [0.9] * 13, [0.9] * 6 + [0.7] * 7
    line = [
        {"from": a, "to": b, "examples": {"old": 10, "new": 10}, "fraction": FRACTIONS}
        | {head: {"old": lost if b == names[-1] else kept, "new": kept} for head in ("trained rows", "end head")}
        for a, b in pairwise(names)
    ]
    return {
        "tasks": names,
        "directions": names,
        "projections": ["layer.0.query", "layer.0.value"],
        "distances": [[abs(a - b) for b in places] for a in places],
        "norm": 100.0,
        "training": [
            {"step": [1, 5], "residual": [0.0, 0.9], "magnitudes": [[1.0] * t, [1.1] * t], "after": [1.1] * t + [1.0]}
            for t in range(tasks)
        ],
        "cosines": [[float(a == b) for b in names] for a in names],
        "depths": [0.0, 0.0],
        "line": line,
    }


@pytest.mark.parametrize("tasks", [2, 5, 20])
def test_the_page_has_the_results(tasks: int, tmp_path: Path) -> None:
    write_class_analysis(by_hand(tasks), tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    pairs = tasks * (tasks - 1) // 2
    assert f"{pairs} of {pairs} pair" in page
    assert f"in {tasks - 2} of {tasks - 1} pair" in page
    assert "20.0 points at worst" in page
    assert f"{tasks - 1} of {tasks - 1} older magnitude" in page
    assert json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8")) == by_hand(tasks)
    for name in ("distances", "training", "line", "cosines"):
        picture = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        assert picture.startswith("<svg")
        assert picture in page
    assert not re.search(r"(src|href)=.http|<script|url\(http", page)  # nothing is fetched


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match="choose another --out"):
        write_class_analysis(by_hand(2), tmp_path / "taken")
