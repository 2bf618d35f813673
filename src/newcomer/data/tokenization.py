"""Word tokenization of texts in any script.

Words are letters, digits and combining marks. Vowel points of Arabic and Hebrew are removed, as most texts omit them. Scripts
without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are split into bigrams of characters. `C++` and `C#`
are distinct from `C`.
"""

import re
import unicodedata
from itertools import pairwise

import polars as pl

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー々〆"
"""Scripts without blanks between words."""

RUN = rf"[{UNSPACED}][{UNSPACED}\p{{M}}]*"
LETTER = rf"[[\p{{L}}\p{{N}}]--[{UNSPACED}]]"
WORD = rf"{RUN}|{LETTER}(?:{LETTER}|[\p{{M}}'])*(?:\+\+|#)?"
ASCII_WORD = re.compile(r"[a-z0-9][a-z0-9']*(?:\+\+|#)?")
"""`WORD` in ASCII."""

VOWEL_POINTS = (
    r"[\u{591}-\u{5bd}\u{5bf}\u{5c1}\u{5c2}\u{5c4}\u{5c5}\u{5c7}"
    r"\u{610}-\u{61a}\u{640}\u{64b}-\u{65f}\u{670}\u{6d6}-\u{6dc}\u{6df}-\u{6e8}\u{6ea}-\u{6ed}]"
)
"""Vowel points and other marks of Hebrew and Arabic, and the tatweel."""

ZERO_WIDTH = r"[\u{ad}\u{200b}-\u{200d}\u{2060}\u{feff}]"
"""Zero-width characters: soft hyphens and joiners."""

COMPATIBILITY_FORMS = r"[\u{fb00}-\u{fdff}\u{fe70}-\u{fefc}\u{ff01}-\u{ffef}]"
"""Ligatures, Arabic presentation forms, full- and half-width letters."""


def tokenize(texts: pl.Series) -> pl.Series:
    """Lower-case words of each text, in order; null for null.

    >>> tokenize(pl.Series(["The Sea, the Sea", "C++ und C#", "हिन्दी फ़िल्म", "手机壳", "مُحَمَّد"])).to_list()
    [['the', 'sea', 'the', 'sea'], ['c++', 'und', 'c#'], ['हिन्दी', 'फ़िल्म'], ['手机', '机壳'], ['محمد']]
    """
    if not texts.str.contains(r"[^\x00-\x7f]").any():
        return texts.str.to_lowercase().str.extract_all(WORD)
    folded = texts.str.normalize("NFC").str.replace_all(ZERO_WIDTH, "").str.replace_all(VOWEL_POINTS, "")
    if folded.str.contains(COMPATIBILITY_FORMS).any():
        folded = pl.select(
            pl.when(folded.str.contains(COMPATIBILITY_FORMS)).then(folded.str.normalize("NFKC")).otherwise(folded)
        ).to_series()
    lower = folded.str.to_lowercase().str.replace_all("i\u0307", "i")  # from the Turkish dotted capital I
    found = lower.str.extract_all(WORD).alias(texts.name)
    runs = found.explode().drop_nulls().unique()
    runs = runs.filter(runs.str.contains(rf"^[{UNSPACED}]"))
    if not len(runs):
        return found
    pairs = {run: bigrams(run) for run in runs}
    split = [
        None if words is None else [part for word in words for part in pairs.get(word, (word,))] for words in found
    ]
    return pl.Series(texts.name, split, dtype=pl.List(pl.String))


def ascii_words(text: str) -> list[str]:
    """`tokenize` of one text in ASCII.

    >>> ascii_words("The Sea, the C++ sea")
    ['the', 'sea', 'the', 'c++', 'sea']
    """
    return ASCII_WORD.findall(text.lower())


def bigrams(run: str) -> list[str]:
    """Bigrams of characters with their combining marks; a single character is returned as it is.

    >>> bigrams("กำลัง")
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
