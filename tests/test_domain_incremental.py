"""Domain-incremental streams: every class in every task, no example in two of them, and each domain is asked once it was seen."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from newcomer import registry
from newcomer.classes.heads import make_head
from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.datasets.domainnet import SIZES
from newcomer.data.examples import Examples
from newcomer.data.io.domain_folders import domain_folder
from newcomer.errors import DataError, RecipeError, StreamError
from newcomer.experiments.recipe import read_recipe
from newcomer.experiments.report import plot_style
from newcomer.experiments.report.page import figures
from newcomer.experiments.report.runs import Run
from newcomer.experiments.report.table import result_tables
from newcomer.experiments.run import Score, run
from newcomer.metrics.accuracy import forgetting, forgetting_by_task
from newcomer.settings import settings_of
from newcomer.streams.class_incremental import ClassIncremental
from newcomer.streams.domain_incremental import DomainIncremental

NAMES = ["clip", "photo", "sketch", "scan"]


def texts(domains: int, classes: int, each: int, split: str, without: tuple[str, str] | None = None) -> Examples:
    """`each` texts of every class in every domain, no text twice; the order mixes domains and classes."""
    kinds = [(d, f"class {n}") for n in range(classes) for d in NAMES[:domains] if (d, f"class {n}") != without]
    rows = [(f"{split} {d} {c} {i}", c, d) for i in range(each) for d, c in kinds]
    inputs, labels, of = zip(*rows, strict=True)
    return Examples(list(inputs), list(labels), domains=list(of))


def made(count: int = 3, **settings: Any) -> DomainIncremental:
    """Of four classes in so many domains."""
    train, test = texts(count, 4, 8, "train"), texts(count, 4, 3, "test")
    return DomainIncremental(train, test, **settings)


def contents(stream: DomainIncremental) -> list[Any]:
    return [(s.name, list(s.train.inputs), {n: list(e.inputs) for n, e in s.eval_sets.items()}) for s in stream]


@given(
    domains=st.integers(2, 4),
    classes=st.integers(1, 4),
    limits=st.tuples(*[st.none() | st.integers(1, 7)] * 2),
    eval_split=st.sampled_from(["test", "validation"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_every_class_is_in_every_task_and_no_example_in_two(
    domains: int, classes: int, limits: tuple[int | None, int | None], eval_split: Any, seed: int
) -> None:
    stream = DomainIncremental(
        texts(domains, classes, 8, "train"),
        texts(domains, classes, 3, "test"),
        train_per_class=limits[0],
        eval_per_class=limits[1],
        eval_split=eval_split,
        seed=seed,
    )
    stages = list(stream)
    order = [stage.name for stage in stages]
    assert len(stream) == domains
    assert sorted(order) == sorted(NAMES[:domains])
    for t, stage in enumerate(stages):
        assert set(stage.train.domains) == {stage.name}
        assert set(stage.train.labels) == {f"class {n}" for n in range(classes)}
        assert list(stage.eval_sets) == order[: t + 1]
        for name, examples in stage.eval_sets.items():
            assert set(examples.domains) == {name}
            assert set(examples.labels) == set(stage.train.labels)
            assert limits[1] is None or max(Counter(examples.labels).values()) <= limits[1]
        assert limits[0] is None or max(Counter(stage.train.labels).values()) <= limits[0]
    trained = [x for stage in stages for x in stage.train.inputs]
    asked = [x for examples in stages[-1].eval_sets.values() for x in examples.inputs]
    assert len(set(trained)) == len(trained)
    assert not set(trained) & set(asked)
    assert stream.info() == {
        "domains": order,
        "classes": stream.classes,
        "train_examples": len(trained),
        "eval_examples": len(asked),
    }


def test_the_same_seed_gives_the_same_stages_and_another_gives_others() -> None:
    first = made(4, seed=1)
    torch.rand(2)
    assert contents(first) == contents(first) == contents(made(4, seed=1))
    assert {tuple(made(4, seed=seed).domains) for seed in range(6)} > {tuple(first.domains)}


def test_the_order_of_domains_may_be_given_and_draws_no_other_examples() -> None:
    train, test = texts(3, 4, 8, "train"), texts(3, 4, 3, "test")
    one, other = (
        DomainIncremental(train, test, domains=names, train_per_class=2)
        for names in (["sketch", "photo"], ["photo", "sketch"])
    )
    assert [stage.name for stage in one] == ["sketch", "photo"]
    assert {s.name: list(s.train.inputs) for s in one} == {s.name: list(s.train.inputs) for s in other}


def test_joint_training_is_one_stage_evaluated_on_each_domain() -> None:
    (stage,) = stream = made(joint=True)
    assert len(stream) == 1
    assert Counter(stage.train.inputs) == Counter(x for s in made() for x in s.train.inputs)
    assert {n: list(e.inputs) for n, e in stage.eval_sets.items()} == contents(made())[-1][2]


def test_classes_are_named_or_drawn() -> None:
    assert made(classes=["class [12]"]).classes == ["class 1", "class 2"]
    assert set(made(classes=2).classes) < {f"class {n}" for n in range(4)}


def test_the_class_incremental_stream_mixes_the_domains() -> None:
    """With the bits that it has for examples without domains."""
    train, test = texts(3, 4, 8, "train"), texts(3, 4, 3, "test")
    with_domains = ClassIncremental(train, test, tasks=2, train_per_class=5)
    without = ClassIncremental(
        Examples(train.inputs, train.labels), Examples(test.inputs, test.labels), tasks=2, train_per_class=5
    )
    assert [list(s.train.inputs) for s in with_domains] == [list(s.train.inputs) for s in without]
    assert {d for stage in with_domains for d in stage.train.domains} == set(NAMES[:3])


def test_a_domain_may_lack_a_class_where_that_is_said() -> None:
    train, test = texts(3, 4, 8, "train", ("photo", "class 2")), texts(3, 4, 3, "test", ("clip", "class 0"))
    stages = list(DomainIncremental(train, test, domains=NAMES[:3], complete=False))
    assert [len(set(stage.train.labels)) for stage in stages] == [4, 3, 4]
    assert [len(set(examples.labels)) for examples in stages[-1].eval_sets.values()] == [3, 4, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            r"class 'class 2' has no training examples in domain 'photo'; add some, leave .* stream.complete to false",
        ),
        (
            {"domains": ["photo", "clip"]},
            "no training examples in domain 'photo', the first; add some, begin with another",
        ),
        ({"domains": ["photo", "clip"], "complete": False}, "in domain 'photo', the first; .* or leave the class out"),
        ({"domains": ["clip"]}, "there is a single domain, 'clip'; give two or more"),
        ({"domains": []}, "stream.domains is empty"),
        ({"domains": ["clip", "clip"]}, "domain 'clip' occurs 2 times in stream.domains"),
        ({"domains": ["clip", "foto"]}, "domain 'foto', which has no training examples; did you mean 'photo'"),
        ({"train_per_class": 0}, "stream.train_per_class = 0; give a number from 1 on"),
        ({"classes": 9}, "stream.classes = 9, but there are 4 classes"),
        ({"classes": ["kls"]}, "no class with training examples is or matches 'kls'"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    train, test = texts(3, 4, 8, "train", ("photo", "class 2")), texts(3, 4, 3, "test")
    with pytest.raises(StreamError, match=message) as caught:
        DomainIncremental(train, test, **{"domains": NAMES[:3]} | settings)
    assert "\n" not in str(caught.value)


def test_examples_that_do_not_fit_are_refused() -> None:
    train, test = texts(3, 4, 8, "train"), texts(3, 4, 3, "test")
    plain = Examples(train.inputs, train.labels)
    with pytest.raises(StreamError, match="the training examples have no domains; take data that has some"):
        DomainIncremental(plain, test)
    with pytest.raises(StreamError, match="the test examples have no domains"):
        DomainIncremental(train, plain)
    with pytest.raises(StreamError, match="test domain 'scan' has no training examples"):
        DomainIncremental(train, texts(4, 4, 3, "test"))
    with pytest.raises(StreamError, match="domain 'sketch' has no test examples; add some, or name the domains"):
        DomainIncremental(train, texts(2, 4, 3, "test"))
    with pytest.raises(StreamError, match="test class 'class 4' has no training examples"):
        DomainIncremental(train, texts(3, 5, 3, "test"))
    with pytest.raises(StreamError, match="class 'class 3' has no test examples in domain"):
        DomainIncremental(train, texts(3, 3, 3, "test"))
    with pytest.raises(DataError, match="96 inputs, but 1 domains; give one per input, or none"):
        Examples(train.inputs, train.labels, domains=["clip"])


def picture(seed: int, k: int, domain: int) -> NDArray[np.uint8]:
    """A pattern of each class, in the tone of its domain, with noise."""
    pattern = np.random.default_rng(k).integers(0, 150, (8, 8, 3))
    noise = np.random.default_rng((seed, k, domain)).normal(size=(8, 8, 3)) * 15
    return np.clip(pattern + 40 * domain + noise, 0, 255).astype(np.uint8)


def pictures(each: int, seed: int) -> Examples:
    """`each` pictures of three classes in each of two domains."""
    rows = [(picture(seed + i, k, d), f"{k}", NAMES[d]) for i in range(each) for k in range(3) for d in range(2)]
    inputs, labels, domains = zip(*rows, strict=True)
    return Examples(list(inputs), list(labels), domains=list(domains))


@pytest.mark.parametrize("head", ["prototypes", "ridge", "lda"])
def test_a_frozen_head_after_all_domains_is_that_of_all_examples_at_once(
    head: Any, tiny: Callable[[str], Path]
) -> None:
    """Additive statistics do not know in which order examples came."""
    train, test = pictures(7, 0), pictures(4, 100)
    learners = []
    for joint in (False, True):
        learner = FrozenBackbone(str(tiny("vit")), head=head)
        for stage in DomainIncremental(train, test, joint=joint):
            learner.learn(stage.train)
        learners.append(learner)
    apart, together = (learner.memory for learner in learners)
    for name in ("count", "mean", "scatter", "degrees_of_freedom"):
        one, other = getattr(apart.statistics, name), getattr(together.statistics, name)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert apart.statistics.count.tolist() == [14, 14, 14]
    folded = [
        learner.memory.fold(make_head(head, 0.3), (torch.zeros_like(apart.statistics.mean), torch.zeros(3)))
        for learner in learners
    ]
    for one, other in zip(*folded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert learners[0].predict(test.inputs) == learners[1].predict(test.inputs)


FAST = {"epochs": 1, "batch_size": 8, "rank": 2, "projection_dim": 20, "components": 3, "total_tasks": 2}


@pytest.mark.parametrize("name", registry.CLASS_LEARNERS)
def test_every_learner_with_a_head_on_statistics_learns_the_second_domain(
    name: str, tiny: Callable[[str], Path]
) -> None:
    kind: Any = registry.CLASSES[name]
    known = settings_of(kind)
    own = {key: value for key, value in FAST.items() if key in known} | ({"head": "lda"} if "head" in known else {})
    learner = kind(str(tiny("vit")), **own)
    stream = DomainIncremental(pictures(4, 0), pictures(2, 100), domains=NAMES[:2])
    events = run(learner, stream)
    scores, logits = [], []
    for event in events:
        if isinstance(event, Score):
            scores.append((event.stage, event.eval_set))
            logits.append(learner.logits(pictures(2, 100).inputs))
    assert scores == [("clip", "clip"), ("photo", "clip"), ("photo", "photo")]
    assert learner.memory.statistics.count.tolist() == [8, 8, 8]
    assert not torch.equal(logits[0], logits[1])


def test_no_weight_is_adapted_after_the_first_domain(tiny: Callable[[str], Path]) -> None:
    learner = SDLoRA(str(tiny("vit")), epochs=1, batch_size=8, rank=2)
    first, second = DomainIncremental(pictures(4, 0), pictures(2, 100), domains=NAMES[:2])
    learner.learn(first.train)
    features = learner.features(second.train.inputs)
    learner.learn(second.train)
    assert torch.equal(features, learner.features(second.train.inputs))
    assert learner.lora.directions == 1


RECIPE = """
[data]
name = "domain-folder"
path = "{path}"
[stream]
name = "domain-incremental"
[backbone]
name = "micro-vit"
[learner]
name = "frozen"
[baselines.joint.stream]
joint = true
[baselines.joint.learner]
name = "sequential-lora"
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text.format(path=(folder / "photos").as_posix()), encoding="utf-8")
    return str(path)


def test_a_recipe_names_the_stream_and_has_its_settings(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, RECIPE))
    assert recipe.resolved()["stream"] == {
        "name": "domain-incremental",
        "domains": None,
        "classes": None,
        "complete": True,
        "train_per_class": None,
        "eval_per_class": None,
        "eval_split": "test",
        "joint": False,
    }
    assert recipe.with_baseline("joint").stream["joint"]
    assert "name" not in read_recipe("digits", ["stream.name=class-incremental"]).resolved()["stream"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"frozen"',
            '"l2p"',
            r"learner 'l2p' with head = 'linear' learns nothing from a domain of known classes; give an",
        ),
        (
            "joint = true",
            "joint = false",
            r"in \[baselines.joint\]: learner 'sequential-lora' with head = 'linear' learns",
        ),
        (
            "domain-incremental",
            "domain-increments",
            "stream.name = 'domain-increments' is not a stream for classes; did you mean 'domain-incremental'",
        ),
        ('incremental"', 'incremental"\ntasks = 2', "stream.tasks is not a setting of DomainIncremental"),
    ],
)
def test_a_recipe_that_would_learn_nothing_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in RECIPE
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(written(tmp_path, RECIPE.replace(old, new))).rows()
    assert "\n" not in str(caught.value)


def drawn(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 8), colour).save(path)


def test_a_folder_of_ones_own_is_a_stream(tmp_path: Path) -> None:
    """A fifth of each class in each domain is for testing."""
    for d, domain in enumerate(("sketch", "photo")):
        for k, name in enumerate(("wren", "jay")):
            for number in range(5):
                drawn(tmp_path / "photos" / domain / name / f"{number}.png", (d, k, number))
    (tmp_path / "photos" / "README.txt").write_text("about")
    recipe = read_recipe(written(tmp_path, RECIPE), ['stream.domains=["sketch", "photo"]'])
    first, second = recipe.build_stream()
    assert (first.name, second.name, list(second.eval_sets)) == ("sketch", "photo", ["sketch", "photo"])
    assert Counter(second.train.labels) == {"wren": 4, "jay": 4}
    found = [*first.train.inputs, *second.train.inputs, *(x for e in second.eval_sets.values() for x in e.inputs)]
    colours = {image.getpixel((0, 0)) for image in found if isinstance(image, Image.Image)}
    assert colours == {(d, k, number) for d in range(2) for k in range(2) for number in range(5)}


def test_parts_of_a_folder_of_domains_are_kept(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "test")):
        for domain in ("photo", "sketch"):
            drawn(tmp_path / part / domain / "wren" / "1.png", (number, 0, 0))
    train, test = domain_folder(str(tmp_path))
    assert (train.domains, train.labels) == (test.domains, test.labels) == (["photo", "sketch"], ["wren", "wren"])
    assert [x.getpixel((0, 0)) for x in test.inputs if isinstance(x, Image.Image)] == [(1, 0, 0)] * 2
    with pytest.raises(DataError, match=r"has a test part of its own, but test_share = 0\.5"):
        domain_folder(str(tmp_path), test_share=0.5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"a folder of images by domain not found at .*photos; lay the images out as .*photos/<domain>/<class>/"),
        (["photos/train/photo/wren/1.png"], r"photos/test: no such folder; lay the images out as"),
        (["photos/notes/"], r"notes: holds no class folders; lay the images out as .*<domain>/<class>/"),
        (["photos/a.txt"], r"photos: holds no folders of domains; lay the images out as"),
        (["photos/photo/wren/1.png", "photos/b.png"], r"b\.png: an image beside the folders of domains; move it"),
        (["photos/wren/1.png"], r"1\.png: an image beside the class folders"),
        (["photos/photo/wren/1.png", "photos/photo/jay/"], "jay: a class without images"),
    ],
)
def test_a_folder_that_is_laid_out_otherwise_is_named(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        elif name.endswith("png"):
            drawn(tmp_path / name, (0, 0, 0))
        else:
            (tmp_path / name).touch()
    with pytest.raises(DataError, match=message) as caught:
        domain_folder(str(tmp_path / "photos"))
    assert "\n" not in str(caught.value)


def test_the_recipe_for_domainnet_runs_on_a_few_pictures_of_it(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the gaps of the data set: 't-shirt' is in painting's test alone, 'syringe' in its training alone."""
    monkeypatch.setenv("NEWCOMER_DATA", str(tmp_path))
    recipe = read_recipe("domainnet-domains").with_baseline("frozen-lda")
    gaps = {("painting", "t-shirt"): "train", ("painting", "syringe"): "test"}
    for d, domain in enumerate(SIZES):
        for k, name in enumerate(("t-shirt", "syringe", "zebra")):
            for number in range(3):
                part = "test" if number == 2 else "train"
                if gaps.get((domain, name)) == part:
                    continue
                drawn(tmp_path / "domainnet" / domain / name / f"{number}.png", (30 * d, 90 * k, number))
                with (tmp_path / "domainnet" / f"{domain}_{part}.txt").open("a") as listed:
                    listed.write(f"{domain}/{name}/{number}.png {k}\n")
    recipe = replace(
        recipe, data={**recipe.data, "complete": False}, backbone={**recipe.backbone, "name": str(tiny("vit"))}
    )
    stream = recipe.build_stream()
    learner = recipe.build_learner(stream)
    scores = [event for event in run(learner, stream) if isinstance(event, Score)]
    assert [score.stage for score in scores] == [domain for t, domain in enumerate(SIZES) for _ in range(t + 1)]
    assert {score.eval_set: score.values["examples"] for score in scores[-6:]} == {
        d: 3 - (d == "painting") for d in SIZES
    }
    assert learner.memory.statistics.count.tolist().count(12) == 2  # type: ignore[attr-defined]
    with pytest.raises(
        StreamError, match=r"class '(t-shirt|syringe)' has no (training|test) examples in domain 'painting'"
    ):
        replace(recipe, stream={**recipe.stream, "complete": True}).build_stream()


ACCURACY: list[list[float | None]] = [[0.9, None, None], [0.5, 0.8, None], [0.7, 0.9, 0.6]]


def recorded() -> Run:
    """A finished run on three domains, of these accuracies."""
    recipe = {"family": "classes", "title": "Zoo", "name": "zoo", "row": "frozen", "seed": 0}
    stream = {"domains": NAMES[:3], "classes": ["a", "b"], "train_examples": 1200, "eval_examples": 30}
    machine = {"processor": "cpu", "threads": 1}
    events: list[Any] = [
        {"event": "start", "position": 0, "recipe": recipe, "stream": stream, "commit": None, "machine": machine}
    ]
    for stage, row in zip(NAMES, ACCURACY, strict=False):
        for eval_set, value in zip(NAMES, row, strict=False):
            if value is not None:
                values = {"accuracy": value, "examples": 10.0}
                events.append({"event": "score", "stage": stage, "eval_set": eval_set, "values": values})
        info = {"magnitudes": [[1.0, 0.5]]}  # one direction, of the first domain
        events.append({"event": "stage", "stage": stage, "train_seconds": 1.0, "eval_seconds": 0.0, "info": info})
    return Run(Path(), [*events, {"event": "end"}])


def test_results_are_reported_by_domain() -> None:
    found = recorded()
    assert found.summary().startswith("2 classes in each of 3 domains, trained on 1,200 examples, evaluated on 30; no")
    matrix = np.array(ACCURACY, dtype=float)
    np.testing.assert_allclose(forgetting_by_task(matrix), [0.2, 0.0, 0.0])
    assert np.isnan(forgetting_by_task(matrix[2:])).all()  # joint training
    assert forgetting(matrix) == pytest.approx(0.1)
    whole, accuracy, lost = result_tables({"frozen": [found]})
    assert whole.rows == [["frozen", "1", "73.3", "76.1", "10.0", "3"]]
    assert accuracy.head == lost.head == ["", "seeds", "clip", "photo", "sketch"]
    assert accuracy.rows == [["frozen", "1", "70.0", "90.0", "60.0"]]
    assert lost.rows == [["frozen", "1", "20.0", "0.0", "0.0"]]


def test_plots_have_the_names_of_domains_and_the_directions_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plot_style.STYLE, "svg.fonttype", "none")  # text as text
    _, matrices, magnitudes = (figure.svg for figure in figures({"sd-lora": [recorded()]}))
    assert [matrices.count(f">{name}<") for name in NAMES[:3]] == [2, 2, 2]  # of columns and rows
    assert (magnitudes.count(">task 1<"), magnitudes.count(">task 2<")) == (1, 0)
