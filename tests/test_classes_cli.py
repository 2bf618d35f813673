"""A classifier on the command line: learn in several processes, after a kill too, predict, forget, check out, inspect."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from newcomer.classes.methods.sd_lora import SDLoRA
from newcomer.data.io.example_sources import training_examples as examples
from newcomer.store.folder import Store
from shell import Shell

SHAPES = ["disc", "bar", "cross", "frame", "dots", "steps", "wedge", "ring"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""As the tests themselves: sums over another number of threads differ in their last bits."""
QUICK = ["--set", "rank=2", "--set", "epochs=2", "--set", "batch_size=8", "--set", "learning_rate=1e-3"]


def draw(name: str, number: int) -> Image.Image:
    """A picture of this shape, a little different each time."""
    picture = Image.new("L", (8, 8), 10 * (number % 3))
    pen, at = ImageDraw.Draw(picture), number % 2
    match name:
        case "disc":
            pen.ellipse((1 + at, 1, 6, 6), fill=250)
        case "bar":
            pen.rectangle((3, at, 4, 7), fill=250)
        case "cross":
            pen.line((0, 3 + at, 7, 3 + at), fill=250)
            pen.line((4, 0, 4, 7), fill=250)
        case "frame":
            pen.rectangle((at, 0, 7, 7), outline=250)
        case "dots":
            pen.point([(x, y) for x in range(at, 8, 2) for y in range(at, 8, 2)], fill=250)
        case "steps":
            pen.polygon([(0, 0), (3, 0), (3, 3), (7, 3 + at), (7, 7), (0, 7)], fill=250)
        case "wedge":
            pen.polygon([(0, 7), (7, 7), (7, at)], fill=250)
        case "ring":
            pen.ellipse((at, 0, 7, 7), outline=250)
    return picture


def folder(root: Path, *names: str, each: int = 12, first: int = 0) -> Path:
    """A task: a folder of pictures a class."""
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(first, first + each):
            draw(name, number).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def tasks(shell: Shell) -> list[Path]:
    """Four tasks of two shapes each, in the folder that commands run in."""
    pairs = [SHAPES[i : i + 2] for i in range(0, 8, 2)]
    return [folder(shell.folder / f"task-{i}", *pair) for i, pair in enumerate(pairs)]


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from newcomer.cli import main; main()", *words]


@pytest.mark.always
def test_two_tasks_in_two_processes_and_a_third_that_is_killed(shell: Shell, tasks: list[Path]) -> None:
    words = command("learn", "shapes", str(tasks[0]), "--backbone", "micro-vit", *QUICK)
    done = subprocess.run(words, cwd=shell.folder, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    assert "task 1 learned, 2 classes" in done.stdout
    code, out, err = shell.call("learn", "shapes", str(tasks[1]))
    assert (code, err) == (0, "")
    assert "task 2 learned, 4 classes" in out
    asked = ["predict", "shapes", "task-0", "task-1", "--json", "--top", "4"]
    before, files = shell.call(*asked)[1], shell.files()

    third = ["learn", "shapes", str(tasks[2]), "--set", "epochs=5000"]
    killed = subprocess.Popen(
        command(*third), cwd=shell.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ONE_THREAD
    )
    assert killed.stdout is not None
    killed.stdout.readline()  # it says what it is about to learn, and begins
    time.sleep(1)
    assert killed.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert shell.files() == files
    assert shell.call(*asked)[1] == before

    code, out, err = shell.call("learn", "shapes", str(tasks[2]), "--set", "epochs=2")
    assert (code, err) == (0, "")
    assert "task 3 learned, 6 classes" in out
    whole = SDLoRA("micro-vit", rank=2, epochs=2, batch_size=8, learning_rate=1e-3)
    for task in tasks[:3]:
        whole.learn(examples(task))
    pictures = examples(tasks[0]).inputs
    there = SDLoRA.load(shell.folder / "shapes")
    assert there.logits(pictures).equal(whole.logits(pictures))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "shapes"


@pytest.fixture
def shapes(shell: Shell, tasks: list[Path], kept: Path) -> Path:
    """A model of two tasks; trained once."""
    if not kept.exists():
        assert shell.call("learn", "shapes", "task-0", "--backbone", "micro-vit", *QUICK)[0] == 0
        assert shell.call("learn", "shapes", "task-1")[0] == 0
        shutil.copytree(shell.folder / "shapes", kept)
    else:
        shutil.copytree(kept, shell.folder / "shapes")
    return shell.folder / "shapes"


def test_answers_as_json_and_as_a_table(shapes: Path, shell: Shell) -> None:
    code, out, err = shell.call("predict", "shapes", "task-0/disc", "task-1/frame/3.png", "--json", "--top", "2")
    assert (code, err) == (0, "")
    answers = [json.loads(line) for line in out.splitlines()]
    files = sorted(str(p.relative_to(shell.folder)) for p in (shell.folder / "task-0" / "disc").iterdir())
    assert [a["input"] for a in answers] == [*files, "task-1/frame/3.png"]
    assert all(len(a["classes"]) == 2 and "known" not in a for a in answers)
    assert [a["classes"][0]["class"] for a in answers].count("disc") >= 10
    code, out, _ = shell.call("predict", "shapes", "task-0/disc/0.png")
    assert code == 0
    assert "disc" in out


def test_an_input_of_no_known_class_is_marked(shapes: Path, shell: Shell) -> None:
    def refused(*words: str) -> float:
        lines = shell.call("predict", "shapes", *words, "--json", "--reject", "0.1")[1].splitlines()
        return sum(not json.loads(line)["known"] for line in lines) / len(lines)

    folder(shell.folder / "more", *SHAPES[:4], first=50)
    strange = shell.folder / "strange"
    strange.mkdir()
    for number in range(12):
        Image.effect_noise((8, 8), 90 + number).save(strange / f"{number}.png")
    assert refused("strange") > refused("more") + 0.3
    shown = shell.call("predict", "shapes", "strange", "--reject", "0.5")[1]
    assert "none known" in shown


def test_more_of_a_known_class_is_reported_to_train_no_weight(shapes: Path, shell: Shell) -> None:
    folder(shell.folder / "more", "disc", first=20)
    code, out, _ = shell.call("learn", "shapes", "more")
    assert code == 0
    assert "more of known classes: disc. The class statistics are updated; no weight is trained." in out
    again = shell.call("learn", "shapes", "more")[2]
    assert "these are the examples of task 3, learned again: they count twice" in again
    entries = Store(shapes).entries()[:-1]
    assert [entry.info["what"] for entry in entries] == ["learn"] * 3
    assert not any(key.startswith("direction") for key in entries[-1].tensors)


def test_a_single_new_class_is_reported_to_train_no_weight(shapes: Path, shell: Shell) -> None:
    folder(shell.folder / "more", "steps")
    code, out, _ = shell.call("learn", "shapes", "more")
    assert code == 0
    assert (
        "With a single class there is nothing to discriminate: its statistics are stored; no weight is trained." in out
    )
    assert "5 classes" in out
    folder(shell.folder / "again", "ring")
    assert "the linear head learns nothing from a single class" in shell.fails(
        "learn", "shapes", "again", "--set", "head=linear"
    )


def test_train_is_a_split_where_it_holds_classes_and_a_class_where_it_holds_pictures(tmp_path: Path) -> None:
    for number, name in enumerate(("bus/1.png", "train/1.png", "split/train/bus/1.png", "split/test/bus/1.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw("disc", number).save(tmp_path / name)
    split = tmp_path / "split"
    assert examples(split).labels == ["bus"]
    split.rename(tmp_path.parent / "moved")
    assert examples(tmp_path).labels == ["bus", "train"]


def test_inspecting_shows_stages_classes_and_magnitudes(shapes: Path, shell: Shell) -> None:
    code, out, _ = shell.call("inspect", "shapes")
    assert code == 0
    assert all(
        part in out
        for part in ("sd-lora", "task 1", "task 2", "4: bar, disc, cross, frame", "magnitudes", "GFLOP", " %")
    )
    assert not re.search(r"task 0|what|\bcost|gflops|None|[{}]", out)
    found = json.loads(shell.call("inspect", "shapes", "--json")[1])
    assert [stage["info"]["classes"] for stage in found["stages"]] == [
        ["bar", "disc"],
        ["bar", "disc", "cross", "frame"],
    ]
    assert len(found["magnitudes"]) == 2
    assert 0 <= found["stages"][1]["info"]["held-out accuracy"] <= 1


def test_forgetting_says_what_remains(shapes: Path, shell: Shell) -> None:
    code, out, _ = shell.call("forget", "shapes", "--class", "disc")
    assert code == 0
    assert "'disc' removed, 3 classes left" in out
    assert "remains" in out
    assert all(
        "disc" not in line
        for line in shell.call("predict", "shapes", "task-0/bar", "--json", "--top", "9")[1].splitlines()
    )
    assert "class 'disc' is not known" in shell.fails("forget", "shapes", "--class", "disc")
    assert "did you mean 'frame'?" in shell.fails("forget", "shapes", "--class", "frames")
    assert "disc" in shell.call("predict", "shapes", "task-0/disc", "--json", "--stages", "2", "--top", "9")[1]


def test_an_earlier_state_becomes_a_model_of_its_own(shapes: Path, shell: Shell) -> None:
    assert shell.call("checkout", "shapes", "--stages", "1", "--out", "earlier")[0] == 0
    early, back = (
        shell.call("predict", *words, "task-0", "--json")[1] for words in (["earlier"], ["shapes", "--stages", "1"])
    )
    assert early == back
    assert shell.call("learn", "earlier", "task-3")[0] == 0
    assert "holds a store already" in shell.fails("checkout", "shapes", "--stages", "1", "--out", "earlier")
    assert "holds 2 stages" in shell.fails("checkout", "shapes", "--stages", "7", "--out", "other")


@pytest.mark.parametrize("form", ["transformers", "peft"])
def test_a_model_is_exported(form: str, shapes: Path, shell: Shell) -> None:
    """The folder's content and its loading by other libraries: see test_export."""
    code, out, err = shell.call("export", "shapes", "elsewhere", "--to", form)
    assert (code, err) == (0, "")
    assert "elsewhere/README.md says how to load it" in out
    assert (shell.folder / "elsewhere" / "README.md").exists()
    assert "elsewhere" in shell.fails("export", "shapes", "elsewhere", "--to", form)
    assert "--to pfet: no such format; did you mean 'peft'?" in shell.fails("export", "shapes", "new", "--to", "pfet")


def test_a_model_is_analysed(shapes: Path, shell: Shell) -> None:
    pictures = shell.folder / "all"
    for task in ("task-0", "task-1"):
        for name in (shell.folder / task).iterdir():
            (pictures / name.name).mkdir(parents=True)
            for file in name.iterdir():
                (pictures / name.name / file.name).write_bytes(file.read_bytes())
    code, out, err = shell.call("analyse", "shapes", "--data", "all", "--out", "seen")
    assert (code, err) == (0, "")
    assert "seen/index.html: analysis of shapes" in out
    found = json.loads((shell.folder / "seen" / "analysis.json").read_text())
    assert len(found["distances"]) == 3
    assert found["line"]
    assert shell.call("analyse", "shapes", "--out", "less")[0] == 0
    assert json.loads((shell.folder / "less" / "analysis.json").read_text())["line"] is None


def test_texts_from_tables_and_as_they_are(shell: Shell, tiny: Callable[[str], Path]) -> None:
    rows = [
        ("my card is lost", "lost"),
        ("lost my card", "lost"),
        ("the exchange rate", "rate"),
        ("rate of the euro", "rate"),
    ]
    for name, head in (("first.csv", "question,intent"), ("second.csv", "text,label")):
        (shell.folder / name).write_text("\n".join([head, *(f"{text},{label}" for text, label in rows * 4)]) + "\n")
    words = [
        "learn",
        "desk",
        "first.csv",
        "--text",
        "question",
        "--label",
        "intent",
        "--backbone",
        str(tiny("bert")),
        *QUICK,
    ]
    assert shell.call(*words)[0] == 0
    code, out, _ = shell.call("predict", "desk", "where is my card", "second.csv", "--json")
    assert code == 0
    assert len(out.splitlines()) == 17
    assert json.loads(out.splitlines()[0])["input"] == "where is my card"
    assert "first.csv: no column 'text'" in shell.fails("predict", "desk", "first.csv")
    assert "lost.csv: no such file" in shell.fails("predict", "desk", "lost.csv")
    assert "please send me lost.csv" in shell.call("predict", "desk", "please send me lost.csv", "--json")[1]
    assert "first.csv: no column 'text'" in shell.fails("learn", "desk", "first.csv")
    assert "reads texts, but was given a" in shell.fails("learn", "desk", "birds")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learn", "new", "task-0"], "new: no model here yet; give its backbone with --backbone"),
        (["learn", "new", "nowhere", "--backbone", "micro-vit"], "nowhere: no such file or folder"),
        (
            ["learn", "new", "birds.toml", "--backbone", "micro-vit"],
            "birds.toml: neither a folder of class folders nor",
        ),
        (["learn", "new", "task-0", "--backbone", "nobody/none"], "backbone 'nobody/none' cannot be loaded"),
        (
            ["learn", "new", "task-0", "--backbone", "micro-vit", "--set", "rnk=2"],
            "newcomer: rnk is not a setting of sd-lora; did",
        ),
        (["learn", "new", "task-0", "--backbone", "micro-vit", "--set", "rank"], "write it as setting=value"),
        (
            ["learn", "new", "task-0", "--backbone", "micro-vit", "--set", "backbone.sice=4"],
            "backbone.sice is not a setting",
        ),
        (
            ["learn", "shapes", "task-2", "--set", "magnitude_sharing=projection"],
            "magnitude_sharing = 'shared' there and cannot become",
        ),
        (["learn", "shapes", "task-2", "--set", "rnk=2"], "rnk is not a setting of SDLoRA; did you mean 'rank'?"),
        (
            ["learn", "shapes", "task-2", "--set", "backbone.size=32"],
            "backbone.size: the settings of a model's backbone cannot change",
        ),
        (["predict", "nowhere", "task-0"], "nowhere: no store here"),
        (["predict", "shapes", "nothing.png"], "nothing.png: no such file or folder; this model reads images"),
        (["predict", "shapes", "birds.toml"], "birds.toml: not a readable image"),
        (["inspect", "nothing"], "nothing: no store here"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(words: list[str], message: str, shapes: Path, shell: Shell) -> None:
    assert message in shell.fails(*words)


def test_a_model_in_use_is_left_alone(shapes: Path, shell: Shell) -> None:
    hold = f"from newcomer.store.folder import Store\nwith Store({str(shapes)!r}).held():\n print('held', flush=True)\n input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert "another process is writing this store" in shell.fails("learn", "shapes", "task-2")
        assert "another process is writing this store" in shell.fails("forget", "shapes", "--class", "disc")
        assert shell.call("predict", "shapes", "task-0")[0] == 0
        other.communicate("\n")
    assert shell.call("learn", "shapes", "task-2")[0] == 0
