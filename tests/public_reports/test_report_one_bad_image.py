"""One bad input does not end the work: the rest is answered or learned, and all that is left out is named."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from newcomer.classes.learner import ClassLearner
from newcomer.data.examples import Examples
from newcomer.data.io.example_sources import training_examples
from newcomer.data.io.image_decoding import check_header, check_image, read_image
from newcomer.data.io.image_folders import SYSTEM_FILES, class_folder
from newcomer.data.io.text_tables import class_table, row_ranges
from newcomer.errors import DataError
from newcomer.store.folder import Store
from newcomer.streams.class_incremental import ClassIncremental
from shell import Shell

NEW = ["--backbone", "micro-vit", "--set", "epochs=1", "--set", "rank=1"]


def truncated(path: Path) -> None:
    """An image whose header is whole: the copy was cut off."""
    Image.effect_noise((200, 200), 90).convert("RGB").save(path.with_suffix(".jpg"))
    content = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").unlink()
    path.write_bytes(content[:3000])


@pytest.fixture
def birds(shell: Shell) -> Path:
    """The folder of images, some of which are none."""
    folder = shell.folder / "birds" / "train"
    truncated(folder / "wren" / "cut.jpg")
    truncated(folder / "tit" / "cut, too.jpeg")
    (folder / "wren" / "notes.txt").write_text("seen in May")
    (folder / "wren" / "link.png").symlink_to("/nowhere/image.png")
    (folder / "wren" / "2023").mkdir()
    (folder / "tit" / "2.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    (folder / "owl").mkdir()
    return folder


WRONG = ["wren/cut.jpg: a damaged image", "tit/cut, too.jpeg: a damaged", "wren/notes.txt: not a readable image", "wren/link.png: ",
         "tit/2.HEIC: HEIC images are not supported; convert it to JPEG"]  # fmt: skip


FOLDERS = ["owl: a class without images", "wren/2023: a folder, where images of one class are expected"]


def test_damaged_images_are_found_before_the_lesson_and_left_out(birds: Path, shell: Shell) -> None:
    """A user's task of thousands of images ended in its first pass at the one that a copy had cut off."""
    code, out, err = shell.call("learn", "m", "birds", *NEW)
    assert code == 3
    assert "12 examples; new classes: finch, robin, tit, wren" in out
    assert "12/12" not in out.partition("12 examples")[0]  # 14 were decoded, before it says what it learns
    assert all(any(part in line for line in err.splitlines()) for part in [*WRONG, *FOLDERS])
    assert err.count("newcomer: left out: ") == len(err.splitlines()) == 7
    assert Store(shell.folder / "m").entries()[0].info["examples"] == 12


def test_strict_refuses_a_task_with_a_damaged_image(birds: Path, shell: Shell) -> None:
    """Who wants all or nothing gets it, and nothing is learned."""
    assert "owl: a class without images" in shell.fails("learn", "m", "birds", *NEW, "--strict")
    (birds / "owl").rmdir()
    (birds / "wren" / "2023").rmdir()
    for name in ("wren/notes.txt", "wren/link.png", "tit/2.HEIC"):
        (birds / name).unlink()
    assert "a damaged image (image file is truncated" in shell.fails("learn", "m", "birds", *NEW, "--strict")


def test_a_task_of_which_nothing_can_be_read_is_refused(shell: Shell) -> None:
    """All of a folder's images are of a kind that is not read."""
    (shell.folder / "d" / "a").mkdir(parents=True)
    for number in range(2):
        (shell.folder / "d" / "a" / f"{number}.heic").write_bytes(bytes(50))
    code, _, err = shell.call("learn", "m", "d", *NEW)
    assert code == 2
    assert err.count("HEIC") == 2
    assert "holds no readable image" in err.splitlines()[-1]
    for number in range(2):
        (shell.folder / "d" / "a" / f"{number}.heic").unlink()
        truncated(shell.folder / "d" / "a" / f"{number}.jpg")
    code, _, err = shell.call("learn", "m", "d", *NEW)
    assert (code, err.count("truncated"), err.splitlines()[-1]) == (2, 2, "newcomer: none of the 2 inputs can be read")
    assert not (shell.folder / "m").exists()


@pytest.fixture
def model(shell: Shell) -> Shell:
    assert shell.call("learn", "m", "birds", *NEW)[0] == 0
    return shell


def test_all_other_images_are_answered(model: Shell, birds: Path) -> None:
    """A user's folder of thousands of images had one that was cut off, and he got exit code 2 and no answer at all."""
    code, out, err = model.call("predict", "m", "birds/train", "nowhere.png", "--json")
    assert code == 3
    found: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert sum("classes" in one for one in found) == 12
    assert sorted(one["error"] for one in found if "error" in one) == sorted(
        line.removeprefix("newcomer: left out: ") for line in err.splitlines()
    )
    assert all(
        any(part in line for line in err.splitlines()) for part in [*WRONG, "nowhere.png: no such file or folder"]
    )
    code, out, same = model.call("predict", "m", "birds/train", "nowhere.png")
    assert (code, same) == (3, err)
    assert "birds/train/finch/0.png" in out


def test_strict_answers_nothing_where_a_image_is_damaged(model: Shell, birds: Path) -> None:
    """Who wants all or nothing gets it."""
    truncated(model.folder / "birds" / "train" / "finch" / "9.jpg")
    code, out, err = model.call("predict", "m", "birds/train/finch", "--json", "--strict")
    assert (code, out) == (2, "")
    assert "finch/9.jpg: a damaged image" in err
    assert "nowhere: no such file" in model.fails("predict", "m", "birds/train/finch", "nowhere", "--strict")


def test_nothing_that_can_be_answered_is_a_mistake(model: Shell, birds: Path) -> None:
    """Exit code 2, as ever: one line for one input."""
    assert "cut.jpg: a damaged image" in model.fails("predict", "m", "birds/train/wren/cut.jpg")
    assert "birds/train/owl: holds no images" in model.fails("predict", "m", "birds/train/owl")
    code, _, err = model.call("predict", "m", "nothing.png", "birds/train/wren/notes.txt")
    assert (code, len(err.splitlines())) == (2, 3)
    assert err.endswith("newcomer: none of the 2 inputs can be read\n")


def test_answers_are_written_as_they_are_found(model: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user stopped a long run and had no answer of the hours before."""
    many = model.folder / "many"
    many.mkdir()
    for number in range(200):
        Image.effect_noise((8, 8), 50 + number % 50).save(many / f"{number:03d}.png")
    whole, batches = ClassLearner._features, iter(range(9))

    def features(self: ClassLearner, *given: Any) -> Any:
        if next(batches) == 2:
            raise SystemExit(9)
        return whole(self, *given)

    monkeypatch.setattr(ClassLearner, "_features", features)
    code, out, _ = model.call("predict", "m", "many", "--json")
    assert (code, len(out.splitlines())) == (9, 128)  # of two batches


@pytest.mark.parametrize(
    "name", [*sorted(SYSTEM_FILES), "Thumbs.db", "DESKTOP.INI", ".DS_Store", "._1.png", "Icon\r", "ehThumbs.db"]
)
def test_files_of_file_managers_are_ignored_in_any_case(name: str, shell: Shell) -> None:
    """A folder that was opened in Windows, on a Mac or a NAS: `thumbs.db` ended the task, `@eaDir` was a class."""
    root = shell.folder / "birds" / "train"
    for folder in (root, root / "wren"):
        (folder / name).write_bytes(b"x")
    for shelf in ("@eaDir", "__MACOSX"):
        (root / shelf / "wren").mkdir(parents=True)
        (root / shelf / "wren" / "1.png").write_bytes(b"x")
        (root / "wren" / shelf).mkdir()
    examples = class_folder(root)
    assert (len(examples), examples.classes) == (12, ["finch", "robin", "tit", "wren"])
    left_out: list[str] = []
    assert len(training_examples(root, left_out=left_out)) == 12
    assert left_out == []


def test_a_pipe_in_a_folder_does_not_stop_the_command(model: Shell) -> None:
    """What is neither file nor folder would be waited for."""
    os.mkfifo(model.folder / "birds" / "test" / "pipe.png")
    assert model.call("predict", "m", "birds/test")[0] == 0


def test_a_file_name_that_is_not_utf8_is_predicted(model: Shell) -> None:
    """An archive from another system: printing the file's name ended in a UnicodeEncodeError."""
    source = model.folder / "birds" / "train" / "wren" / "0.png"
    try:
        (source.parent / os.fsdecode(b"\xe9.png")).write_bytes(source.read_bytes())
    except OSError:
        pytest.skip("this file system keeps no such name")
    code, out, _ = model.call("predict", "m", "birds/train/wren", "--json")
    assert code == 0
    assert any(json.loads(line)["input"].endswith("\udce9.png") for line in out.splitlines())
    assert model.call("predict", "m", "birds/train/wren")[0] == 0


def test_rows_without_text_or_class_are_left_out_by_their_numbers(shell: Shell) -> None:
    """A user's spreadsheet had a few empty cells among thousands of rows."""
    (shell.folder / "a.csv").write_text("text,label\na,x\n,x\nb,\nc,y\n , \n" + "d,\n" * 3 + "e,y\n")
    left_out: list[str] = []
    examples = class_table(shell.folder / "a.csv", "text", "label", left_out)
    assert (list(examples.inputs), examples.labels) == (["a", "c", "e"], ["x", "y", "y"])
    assert [line.partition("a.csv: ")[2] for line in left_out] == [
        "column 'text' is empty in rows 2, 5",
        "column 'label' is empty in rows 3, 5-8",
    ]
    with pytest.raises(DataError, match=r"a\.csv: row 2 is empty in column 'text'"):
        class_table(shell.folder / "a.csv", "text", "label")
    (shell.folder / "b.csv").write_text("text,label\na,\n,x\n")
    with pytest.raises(DataError, match=r"b\.csv: no row has both 'text' and 'label'"):
        class_table(shell.folder / "b.csv", "text", "label", [])
    assert row_ranges([1]) == "row 1"


def test_a_store_that_cannot_be_written_is_refused_before_the_task(shell: Shell) -> None:
    """A user's task of hours ended where its place could not be written."""
    (shell.folder / "place").write_text("a file")
    code, out, err = shell.call("learn", "place/m", "birds", *NEW)
    assert code == 2
    assert "place/m: could not be written" in err
    assert "examples" not in out


def test_validation_splits_of_a_large_class_are_drawn_at_once() -> None:
    """A user's stream of 100,000 examples a class took hours to begin with `eval_set = "validation"`."""
    count = 60_000
    examples = Examples([f"{n}" for n in range(2 * count)], ["a", "b"] * count)
    begun = time.monotonic()
    stream = ClassIncremental(examples, examples, tasks=2, eval_split="validation")
    assert time.monotonic() - begun < 10
    assert stream.info()["eval_examples"] == count // 2


def test_a_model_is_analysed_on_the_readable_examples(model: Shell, birds: Path) -> None:
    """The images of `analyse` are those of a user's folder, too."""
    for name in ("wren/cut.jpg", "tit/cut, too.jpeg"):
        (birds / name).unlink()
    code, _, err = model.call("analyse", "m", "--data", "birds", "--out", "seen")
    assert code == 3
    assert "wren/notes.txt: not a readable image" in err
    assert "owl: a class without images" in model.fails("analyse", "m", "--data", "birds", "--out", "other", "--strict")


def test_a_heic_image_by_another_name_is_named(shell: Shell) -> None:
    """A phone's images renamed to .jpg: 'not a readable image', of a file that the phone shows."""
    content = b"\0\0\0\x18ftypheic" + bytes(90)
    (shell.folder / "a.jpg").write_bytes(content)
    for read in (read_image, check_image, check_header):
        with pytest.raises(DataError, match=r"a\.jpg: HEIC images are not supported; convert it to JPEG"):
            read(shell.folder / "a.jpg")
    with pytest.raises(DataError, match="inputs: HEIC images"):
        read_image(content, "inputs")


def test_a_class_of_which_no_image_can_be_read_is_named(shell: Shell) -> None:
    """One class had a single image, which was damaged: the class was missing without a word."""
    wren = shell.folder / "birds" / "train" / "wren"
    for file in sorted(wren.iterdir())[1:]:
        file.unlink()
    truncated(next(wren.iterdir()))
    code, _, err = shell.call("learn", "m", "birds", *NEW)
    assert code == 3
    assert "left out: class 'wren' has no readable image; it is not learned" in err
    next(wren.iterdir()).write_bytes(b"no image")
    assert "wren: no readable image; the class is not learned" in shell.call("learn", "n", "birds", *NEW)[2]
