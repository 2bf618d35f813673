"""The words of a text, in any script.

Latin, Cyrillic, Indic words and the like are letters, digits and the marks that belong to them. The points of Arabic and Hebrew are
taken off, because most people leave them out. Scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese)
are read as pairs of neighbouring characters, which need no dictionary. `C++` and `C#` are other words than `C`.
"""

import re
import unicodedata
from itertools import pairwise

import polars as pl

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー々〆"
"""Scripts that put no blanks between words."""

RUN = rf"[{UNSPACED}][{UNSPACED}\p{{M}}]*"
LETTER = rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]]"
WORD = rf"{RUN}|{LETTER}(?:{LETTER}|[\p{{M}}'])*(?:\+\+|#)?"

POINTS = (
    r"[\u{591}-\u{5bd}\u{5bf}\u{5c1}\u{5c2}\u{5c4}\u{5c5}\u{5c7}"
    r"\u{610}-\u{61a}\u{640}\u{64b}-\u{65f}\u{670}\u{6d6}-\u{6dc}\u{6df}-\u{6e8}\u{6ea}-\u{6ed}]"
)
"""Vowel points and other marks of Hebrew and Arabic, and the stroke that only makes an Arabic word longer."""

UNWRITTEN = r"[\u{ad}\u{200b}-\u{200d}\u{2060}\u{feff}]"
"""Characters of no width, where a word may be broken or letters are joined."""

FORMS = r"[\u{fb00}-\u{fdff}\u{fe70}-\u{fefc}\u{ff01}-\u{ffef}]"
"""Ligatures, Arabic letters by their place in a word, letters of full or half width: other forms of ordinary letters."""


def words_of(texts: pl.Series) -> pl.Series:
    """The words of each text, in order, in lower case; null where there is no text.

    >>> words_of(pl.Series(["The Sea, the Sea", "C++ und C#", "हिन्दी फ़िल्म", "手机壳", "مُحَمَّد"])).to_list()
    [['the', 'sea', 'the', 'sea'], ['c++', 'und', 'c#'], ['हिन्दी', 'फ़िल्म'], ['手机', '机壳'], ['محمد']]
    """
    if not texts.str.contains(r"[^\x00-\x7f]").any():
        return texts.str.to_lowercase().str.extract_all(WORD)
    plain = texts.str.normalize("NFC").str.replace_all(UNWRITTEN, "").str.replace_all(POINTS, "")
    if plain.str.contains(FORMS).any():
        plain = pl.select(
            pl.when(plain.str.contains(FORMS)).then(plain.str.normalize("NFKC")).otherwise(plain)
        ).to_series()
    lower = plain.str.to_lowercase().str.replace_all("i\u0307", "i")  # of a Turkish capital with a dot
    found = lower.str.extract_all(WORD).alias(texts.name)
    runs = found.explode().drop_nulls().unique()
    runs = runs.filter(runs.str.contains(rf"^[{UNSPACED}]"))
    if not len(runs):
        return found
    pairs = {run: pairs_of(run) for run in runs}
    split = [
        None if words is None else [part for word in words for part in pairs.get(word, (word,))] for words in found
    ]
    return pl.Series(texts.name, split, dtype=pl.List(pl.String))


def pairs_of(run: str) -> list[str]:
    """Pairs of neighbouring characters, each with the marks on it; one character alone is itself.

    >>> pairs_of("กำลัง")
    ['กำ', 'ำลั', 'ลัง']
    """
    units = re.findall(r".", run, re.DOTALL)
    joined: list[str] = []
    for unit in units:
        if joined and unicodedata.category(unit).startswith("M"):
            joined[-1] += unit
        else:
            joined.append(unit)
    return [one + other for one, other in pairwise(joined)] or joined
