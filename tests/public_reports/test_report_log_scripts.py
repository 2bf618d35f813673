"""Words of every script."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newcomer.data.inference.value_types import infer_kind
from newcomer.data.io.log_reader import log_from_rows
from newcomer.data.schema import Field, Schema
from newcomer.data.tokenization import tokenize

TITLED = Schema("i", "u", fields=(Field("title", "item", "text"),))


def words(text: str) -> list[str]:
    found: list[str] = tokenize(pl.Series([text]))[0].to_list()
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),
        ("தமிழ் படம்", ["தமிழ்", "படம்"]),
        ("গান বাংলা", ["গান", "বাংলা"]),
        ("مُحَمَّد", ["محمد"]),
        ("شَلام  سـلام", ["شلام", "سلام"]),
        ("שָׁלוֹם", ["שלום"]),
        ("可爱手机壳", ["可爱", "爱手", "手机", "机壳"]),
        ("コーヒー", ["コー", "ーヒ", "ヒー"]),
        ("猫", ["猫"]),
        ("한국 영화", ["한국", "영화"]),
        ("กำลังใจ", ["กำ", "ำลั", "ลัง", "งใ", "ใจ"]),
        ("iPhone手机壳 5", ["iphone", "手机", "机壳", "5"]),
        ("می‌خواهم", ["میخواهم"]),
        ("C, C++ & C#", ["c", "c++", "c#"]),
        ("ＡＢＣ ﬁlm", ["abc", "film"]),
        ("İstanbul", ["istanbul"]),
        ("Don't stop", ["don't", "stop"]),
        ("naïve CAFÉ Straße", ["naïve", "café", "straße"]),
        ("1+1 = 2, #1 & a+b", ["1", "1", "2", "1", "a", "b"]),
        ("", []),
        ("🎬 !", []),
    ],
)
def test_a_text_has_the_words_that_its_readers_see(text: str, found: list[str]) -> None:
    """Users of other scripts: Hindi became single consonants, a Chinese title one word, 'C++' was 'C'."""
    assert words(text) == [unicodedata.normalize("NFC", word) for word in found]
    assert words(unicodedata.normalize("NFD", text)) == words(text)


LATIN = st.text(st.sampled_from("abcXYZ éÉß'’-,.0129&!()"), max_size=30)


@settings(deadline=None)
@given(st.lists(LATIN, min_size=1))
def test_latin_words_are_what_they_were(texts: list[str]) -> None:
    """Vocabularies of European titles do not change."""
    before = pl.Series(texts).str.to_lowercase().str.extract_all(r"[\p{L}\p{N}][\p{L}\p{N}']*")
    assert tokenize(pl.Series(texts)).to_list() == before.to_list()


@settings(deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1))
def test_a_texts_words_do_not_depend_on_the_others(texts: list[str]) -> None:
    """A title is read alike alone and among others, whatever scripts they are in."""
    assert tokenize(pl.Series(texts)).to_list() == [words(text) for text in texts]


def test_a_chinese_title_shares_words_with_a_like_one() -> None:
    """New items with like titles have something in common."""
    log = log_from_rows(TITLED, i=["a", "b"], u=[1, 1], label=[0, 1], time=[1, 2], title=["可爱手机壳", "透明手机壳"])
    one, other = (set(row) - {-1} for row in log.items.columns["title"].values.tolist())
    assert len(one & other) == 2


def test_titles_of_any_script_are_proposed_as_text() -> None:
    """A proposal took Chinese titles for categories, each of which occurs once."""
    titles = [f"{a}{b}手机壳超薄" for a in "红黄蓝绿白黑" for b in "大小新旧长短"]
    assert infer_kind(pl.Series("title", titles)).kind == "text"
