"""Nothing of a user's is markup: names are shown as they are, on a terminal, on a page and in a picture."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.table import Table as RichTable

from newcomer.cli.program import bar, console
from newcomer.experiments.report.html import render_template, to_printable
from newcomer.experiments.report.page import Figure, Section
from newcomer.experiments.report.plot_style import legend_label, render_svg
from newcomer.experiments.report.plots import graphs
from newcomer.experiments.report.table import Table
from shell import Shell

NAMES = [
    "bird [juvenile]",
    "[red]",
    "my [/quote] card",
    "Brazil [/b] uncut",
    ":smile:",
    "[link=file:///etc/passwd]x[/link]",
    "{0}{name}%s",
    "a$\\frac{$b",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "-->",
    "{{ 7 * 7 }}",
    "卡片 ไทย हिन्दी",
    "_hidden",
]
"""What is to be seen as it is written."""
ESCAPED = {
    "a\x1b[31mred": r"a\x1b[31mred",
    "two\nlines": r"two\nlines",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\x07": r"\x07",
}
"""What a terminal would obey."""


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """rich #2636: text in square brackets vanished, or ended the program in a MarkupError."""
    table = RichTable(name, title=name, caption=name)
    table.add_row(name)
    console.print(table, soft_wrap=True, width=200)
    console.print(name, soft_wrap=True)
    with bar(name) as shown:
        shown.say(name, name)
    assert capsys.readouterr().out.count(name) >= 5


@pytest.mark.parametrize("name", ESCAPED)
def test_terminal_escapes_are_printed_as_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """CWE-150: escapes in a file's name turned the terminal's colours, moved its cursor, or turned the text around them."""
    table = RichTable(name, title=name)
    table.add_row(name)
    console.print(table, width=200)
    console.print(name)
    with bar(name) as shown:
        shown.say(name, name)
    out = capsys.readouterr().out
    assert out.count(ESCAPED[name]) >= 4
    assert not set(out) & set("\x1b\x07\u202e")


def test_classes_with_such_names_go_through_every_command(shell: Shell) -> None:
    """rich #2636, by the commands: a class `bird [juvenile]` was shown as `bird`, `[red]` as nothing."""
    birds = shell.folder / "birds"
    for old, new in (("wren", "bird [juvenile]"), ("tit", "[red]"), ("robin", ":smile: $x$"), ("finch", "a\x1b[31m")):
        for split in ("train", "test"):
            (birds / split / old).rename(birds / split / new)
    code, out, err = shell.call("run", "birds.toml", "--out", "runs")
    assert (code, err) == (0, "")
    code, out, err = shell.call("inspect", "runs/sd-lora/seed-0/store")
    assert (code, err) == (0, "")
    shown = re.sub(r"\s", "", out)
    for name in ("bird[juvenile]", "[red]", ":smile:$x$", r"a\x1b[31m"):
        assert name in shown
    code, out, err = shell.call("analyse", "runs/sd-lora/seed-0/store", "--out", "[b]found")
    assert (code, err) == (0, "")
    assert "[b]found" in out


class Seen(HTMLParser):
    """The tags of a page and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text = set[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", [*NAMES, *ESCAPED])
def test_names_are_text_on_a_page(name: str) -> None:
    """CWE-79: a row's name or an item's title that is HTML."""
    table = Table(name, [name, name], [[name, name]], name)
    start = {"machine": {"processor": name, "threads": 1, "gpu": None, "system": name}, "versions": {}, "commit": name}
    picture = Figure(graphs([{"graph": [[1.0]], "fields": [to_printable(name)], "title": to_printable(name)}]), name)
    page = render_template("page.html.jinja", sections=[Section(name, name, [table, table], [picture])], start=start)
    seen = Seen(page)
    assert not seen.tags & {"script", "img", "b"}
    assert seen.text.count(ESCAPED.get(name, name)) >= 8
    assert not set(page) & set("\x1b\x07\u202e")


@pytest.mark.parametrize("name", [*NAMES, *ESCAPED])
def test_names_are_text_in_a_picture(name: str) -> None:
    """A report of rows with odd names: a dollar begins a formula, an underscore hides a curve, a script is drawn as boxes."""

    def draw(figure: object) -> None:
        axis = figure.subplots()  # type: ignore[attr-defined]
        axis.set_title(to_printable(name))
        axis.plot([0, 1], [0, 1], label=legend_label(to_printable(name)))
        axis.legend()

    svg = render_svg(3, 3, draw)
    ElementTree.fromstring(svg)
    assert "legend_1" in svg
    if "卡" in name:
        assert "卡片" in svg  # as text: the reader's fonts draw it


def test_results_survive_json(tmp_path: Path) -> None:
    from newcomer.experiments.report.html import write_folder
    from newcomer.store.writing import to_json

    write_folder({"analysis.json": to_json(["\udcff", "größer", "a\x1b"])}, tmp_path)
    assert json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8")) == ["\udcff", "größer", "a\x1b"]
