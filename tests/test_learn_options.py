"""`newcomer learn` with a method and a head, and the hints of `learn` and `train`."""

from collections.abc import Callable
from pathlib import Path

from newcomer.classes.methods.frozen import FrozenBackbone
from newcomer.store.folder import Store
from shell import Shell


def test_learn_takes_a_method_and_a_head(shell: Shell, tiny: Callable[[str], Path]) -> None:
    code, out, err = shell.call(
        "learn", "m", "birds/train", "--backbone", str(tiny("vit")), "--learner", "frozen", "--head", "kernel"
    )
    assert (code, err) == (0, "")
    assert "hint" not in out
    manifest = Store(shell.folder / "m").manifest()
    assert (manifest.learner, manifest.settings["head"]) == ("frozen", "kernel")
    assert FrozenBackbone.load(shell.folder / "m").classes == ["finch", "robin", "tit", "wren"]
    code, _, err = shell.call("learn", "m", "birds/test", "--learner", "frozen")
    assert (code, err) == (0, "")
    message = shell.fails("learn", "m", "birds/test", "--learner", "l2p")
    assert message == "newcomer: m: --learner l2p: this model's is 'frozen' and cannot change; leave it out"


def test_an_unknown_method_or_head_is_one_line(shell: Shell, tiny: Callable[[str], Path]) -> None:
    words = ("learn", "m", "birds/train", "--backbone", str(tiny("vit")))
    message = shell.fails(*words, "--learner", "frozn")
    assert message == "newcomer: --learner frozn: no such method for classes; did you mean 'frozen'?"
    assert "head" in shell.fails(*words, "--head", "kernl")


def test_a_new_text_model_gets_the_hint_at_the_kernel_head_once(shell: Shell, tiny: Callable[[str], Path]) -> None:
    rows = ["text,label", *(f"my card is {'lost' if n % 2 else 'stolen'},{n % 2}" for n in range(8))]
    (shell.folder / "texts.csv").write_text("\n".join(rows) + "\n")
    code, out, err = shell.call("learn", "m", "texts.csv", "--backbone", str(tiny("bert")), "--set", "epochs=1")
    assert (code, out.count("hint: "), err) == (0, 1, "")
    assert "--learner frozen --head kernel" in out
    code, out, _ = shell.call("learn", "m", "texts.csv")
    assert (code, out.count("hint: ")) == (0, 0)


def test_training_a_click_model_hints_at_the_cheaper_method(shell: Shell) -> None:
    rows = ["item,user,click,time,genre", *(f"i{n % 6},u{n % 9},{n // 2 % 2},{n},g{n % 6 % 2}" for n in range(240))]
    (shell.folder / "log.csv").write_text("\n".join(rows) + "\n")
    quick = [word for change in ("pretrain_epochs=1", "meta_epochs=1") for word in ("--set", change)]
    code, out, err = shell.call("train", "m", "log.csv", *quick)
    assert (code, out.count("hint: "), err) == (0, 1, "")
    assert "`--learner auto`" in out
    code, out, err = shell.call("train", "other", "log.csv", "--learner", "dropout-net", *quick)
    assert (code, out.count("hint: "), err) == (0, 0, "")
