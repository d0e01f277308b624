"""Distinctive words: what some texts say more often than others, with a measure that rare words cannot fool.

Log-odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' words"): for word w with counts
y in the texts and z in the rest, n and m words in all, prior a_w = its share of all words times `prior` (a_0 in all),

    delta = log (y + a_w) / (n + a_0 - y - a_w) - log (z + a_w) / (m + a_0 - z - a_w),
    z-score = delta / sqrt(1 / (y + a_w) + 1 / (z + a_w)).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log, sqrt

from overtone.core.errors import DataError

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


@dataclass(frozen=True)
class Word:
    """A word, its z-score (above about 2: more than chance), and in how many of the texts it occurs."""

    word: str
    z: float
    n_texts: int


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; numbers and signs are left out."""
    return _WORD.findall(text.lower())


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs in some texts."""
    return Counter(w for t in texts for w in words_of(t))


def distinctive_words(
    texts: Sequence[str], others: Iterable[str] | Counter[str], *, n: int = 5, prior: float = 100.0, min_texts: int = 2
) -> tuple[Word, ...]:
    """The n words of highest z-score in `texts` against all others, highest first; only words with a positive score.

    others: the other texts, or their `count_words` where they are used more than once; prior: weight of the prior,
    in words; min_texts: a word of fewer texts is left out, so that one odd text names nothing. Raises DataError if
    there are no texts.
    """
    if not texts:
        raise DataError("there are no texts to find distinctive words in.")
    inside = count_words(texts)
    outside = others if isinstance(others, Counter) else count_words(others)
    if len(inside.keys() | outside.keys()) < 2:
        return ()  # one word alone sets nothing apart
    spread = Counter(w for t in texts for w in set(words_of(t)))
    n_in, n_out = sum(inside.values()), sum(outside.values())
    scored = []
    for w, y in inside.items():
        z = outside[w]
        a = prior * (y + z) / (n_in + n_out)
        delta = log((y + a) / (n_in + prior - y - a)) - log((z + a) / (n_out + prior - z - a))
        scored.append(Word(w, delta / sqrt(1 / (y + a) + 1 / (z + a)), spread[w]))
    kept = [w for w in scored if w.n_texts >= min(min_texts, len(texts)) and w.z > 0]
    return tuple(sorted(kept, key=lambda w: (-w.z, w.word))[:n])
