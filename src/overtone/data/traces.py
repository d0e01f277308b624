"""Reasoning traces as token ids: where their steps begin and end, how they are split, saved and loaded.

Everything here works in token space. Re-tokenising decoded text can move boundaries, so text is never cut and
encoded again: a step is a span of positions in the ids that the model itself saw or wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.core.artifacts import Manifest, new_folder, read_manifest
from overtone.core.errors import DataError, SettingError, StoreError
from overtone.core.seeds import derive

_TABLE = "traces.parquet"
_BYTE_MARKS = str.maketrans({"Ċ": "\n", "Ġ": " ", "ĉ": "\t", "č": "\r"})
_PIECE_MARKS = str.maketrans({"▁": " "})
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")


@dataclass(frozen=True)
class ReasoningTrace:
    """One prompt and the response to it, as token ids in model order, without padding.

    prompt_ids: what the model was given, with any start token; may be empty for a plain document.
    response_ids: what it wrote, with the end token if it wrote one. document: index of the trace in its collection.
    group: what splits go by (a problem, a source document); a split never cuts a group.
    meta: free plain data (JSON types), such as prompt text, problem, finished. Raises DataError if there is no token.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    document: int
    group: str
    meta: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.prompt_ids and not self.response_ids:
            raise DataError(f"trace {self.document} has no token. Drop empty prompts and texts before tokenising.")

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and response in one row."""
        return self.prompt_ids + self.response_ids


@dataclass(frozen=True)
class StepSpan:
    """Where one reasoning step lies in `trace.tokens`.

    index: number of the step in its trace, from 0. Its text is tokens[start:end], at least one token.
    before: position of the token that precedes it, normally the delimiter that ends the step before it; the last token
    of the prompt if that ends without a delimiter (anchor `next`: the state that decides this step); -1 if nothing
    precedes it. delimiter: position of the delimiter that ends it, or its last token (end - 1) when the text ends first
    (anchor `prev`).
    """

    index: int
    start: int
    end: int
    before: int
    delimiter: int


class Delimiters(frozenset[int]):
    """Ids of the tokens that end a step: a frozenset of int that also remembers what a cut must know.

    special: ids that are never part of a step (start, end, padding, turn marks). newlines: ids whose text ends in one
    newline; bare: ids that are nothing but one newline. A token of `newlines` followed by one of `bare` is a blank line
    written in two tokens; both are empty unless that was asked for.
    """

    special: frozenset[int]
    newlines: frozenset[int]
    bare: frozenset[int]

    def __new__(
        cls, ids: Iterable[int], special: Iterable[int] = (), newlines: Iterable[int] = (), bare: Iterable[int] = ()
    ) -> Delimiters:
        made = super().__new__(cls, ids)
        made.special, made.newlines, made.bare = frozenset(special), frozenset(newlines), frozenset(bare)
        return made


def delimiter_ids(tokenizer: Any, *, pairs: bool = False) -> Delimiters:
    r"""Every entry of the vocabulary whose text contains a blank line: "\n\n", ".\n\n", "\n \n", with any BPE marks.

    tokenizer: a `transformers` tokenizer, byte-level BPE ("ĊĊ"), SentencePiece or plain.
    pairs: also cut where two newline tokens in a row make the blank line (SentencePiece vocabularies without a "\n\n"
    entry; models that write "\n" twice). Steering after a set of ids does not see such pairs.
    Returns a frozenset of ids; its `special` holds the special tokens but not the unknown one.
    Raises DataError if no entry (nor, with pairs, a newline) exists. Source: SEAL's rule, arXiv 2504.07986.
    """
    surfaces = vocabulary_texts(tokenizer)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    ids = {i for i, text in surfaces.items() if i not in special and _BLANK_LINE.search(text)}
    ends = {i for i, text in surfaces.items() if text.rstrip(" \t\r").endswith("\n") and text.count("\n") == 1}
    bare = {i for i in ends if not surfaces[i].strip()}
    if not ids and not (pairs and bare):
        hint = " It writes one as two newlines: call delimiter_ids(tokenizer, pairs=True)." if bare else ""
        raise DataError(
            f"no entry of this vocabulary ({len(surfaces)} tokens) contains a blank line, so steps cannot be cut at "
            f"blank lines.{hint or ' Give the ids of the tokens that end a step instead.'}"
        )
    return Delimiters(ids, special, ends if pairs else (), bare if pairs else ())


def vocabulary_texts(tokenizer: Any) -> dict[int, str]:
    """Id -> the text that an entry stands for, byte-level and SentencePiece marks undone for white space.

    Letters outside ASCII keep the marks of byte-level BPE: this is for finding white space, not for display.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    is_byte_level = "ByteLevel" in repr(getattr(backend, "decoder", "")) or hasattr(tokenizer, "byte_decoder")
    marks = _BYTE_MARKS if is_byte_level else _PIECE_MARKS
    names = ((i, t.decode("utf-8", "replace") if isinstance(t, bytes) else t) for t, i in tokenizer.get_vocab().items())
    return {i: name.translate(marks).replace("<0x0A>", "\n") for i, name in names}


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Hash of the vocabulary and the special ids: 16 hex digits, equal for equal meanings of token ids."""
    text = json.dumps([sorted(map(str, tokenizer.get_vocab().items())), sorted(tokenizer.all_special_ids)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cut_steps(
    trace: ReasoningTrace,
    delimiters: frozenset[int],
    *,
    think: tuple[int | None, int | None] | None = None,
) -> list[StepSpan]:
    """The steps of a trace's response, in order; steps without a token are skipped.

    delimiters: from `delimiter_ids` (or any frozenset of ids; then no id counts as special).
    think: (open, close) ids restrict the cut to the think section: after the first `open` of the response, or from the
    start of the response when the prompt left it open (or open is None), up to `close` or the end. A trace without the
    section has no steps. Special tokens end a step like the end of the text does and belong to none.
    """
    special = getattr(delimiters, "special", frozenset())
    tokens, (first, last) = trace.tokens, _section(trace, think)
    steps: list[StepSpan] = []
    start = first
    for at in range(first, last + 1):
        is_delimiter = at < last and _ends_step(tokens, at, delimiters)
        if not (is_delimiter or at == last or tokens[at] in special):
            continue
        # The newline that opens a blank line written in two tokens belongs to the delimiter, not to the text.
        end = at - 1 if is_delimiter and tokens[at] not in delimiters and tokens[at - 1] in _bare(delimiters) else at
        if end > start:
            steps.append(StepSpan(len(steps), start, end, start - 1, at if is_delimiter else at - 1))
        start = at + 1
    return steps


def _bare(delimiters: frozenset[int]) -> frozenset[int]:
    return getattr(delimiters, "bare", frozenset())


def _ends_step(tokens: Sequence[int], at: int, delimiters: frozenset[int]) -> bool:
    if tokens[at] in delimiters:
        return True
    return at > 0 and tokens[at] in _bare(delimiters) and tokens[at - 1] in getattr(delimiters, "newlines", ())


def _section(trace: ReasoningTrace, think: tuple[int | None, int | None] | None) -> tuple[int, int]:
    """First position and end of the part of trace.tokens that is cut; equal when there is none."""
    first, last = len(trace.prompt_ids), len(trace.tokens)
    if think is None:
        return first, last
    opens, closes = think
    if opens is not None and not _left_open(trace.prompt_ids, opens, closes):
        if opens not in trace.response_ids:
            return last, last
        first += trace.response_ids.index(opens) + 1
    if closes is not None and closes in trace.tokens[first:]:
        last = first + trace.tokens[first:].index(closes)
    return first, last


def _left_open(ids: Sequence[int], opens: int, closes: int | None) -> bool:
    marks = [i for i in ids if i in (opens, closes)]
    return bool(marks) and marks[-1] == opens


def split_groups(
    traces: Sequence[ReasoningTrace], shares: Mapping[str, float], seed: int
) -> dict[str, list[ReasoningTrace]]:
    """Split traces by group into named parts, each as near to its share of the groups as whole groups allow.

    shares: name -> share, each > 0, together 1. Which part a group falls into depends on seed and the set of groups
    only, not on the order of traces; within a part they keep their order. Raises SettingError for bad shares and
    DataError if a part would be empty.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise SettingError(f"shares={dict(shares)}: each must be above 0 and together they must be 1.")
    groups = sorted({t.group for t in traces}, key=lambda g: (derive(seed, "split", g), g))
    part_of: dict[str, str] = {}
    cut, done = 0, 0.0
    for name, share in shares.items():
        done += share
        start, cut = cut, round(done * len(groups))
        if cut <= start:
            raise DataError(
                f"split {name!r} (share {share:g}) would be empty: there are only {len(groups)} groups. "
                "Give more problems, or fewer or larger splits."
            )
        part_of.update(dict.fromkeys(groups[start:cut], name))
    return {name: [t for t in traces if part_of[t.group] == name] for name in shares}


def traces_fingerprint(traces: Iterable[ReasoningTrace]) -> str:
    """Hash of token ids, prompt lengths and document numbers, in order: 16 hex digits. Groups and meta do not count."""
    digest = hashlib.sha256()
    for t in traces:
        digest.update(json.dumps([t.document, t.prompt_ids, t.response_ids]).encode())
    return digest.hexdigest()[:16]


def save_traces(
    path: str | Path,
    traces: Sequence[ReasoningTrace],
    *,
    tokenizer: str = "",
    seed: int | None = None,
    sources: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write traces as a folder artifact of kind "traces" (one Parquet table), atomically.

    tokenizer: its `tokenizer_fingerprint`, kept among the sources. Raises DataError if there are no traces or a meta is
    not plain data, StoreError if `path` holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not traces:
        raise DataError("there are no traces to save. Check the prompts and the sampling that should have made them.")
    ids = pa.list_(pa.int32())
    table = pa.table(
        {
            "document": pa.array([t.document for t in traces], pa.int64()),
            "group": pa.array([t.group for t in traces], pa.string()),
            "prompt_ids": pa.array([t.prompt_ids for t in traces], ids),
            "response_ids": pa.array([t.response_ids for t in traces], ids),
            "meta": pa.array([_plain_meta(t) for t in traces], pa.string()),
        }
    )
    known = {"tokenizer": tokenizer, **(sources or {})}
    facts = {"n_traces": len(traces), "content": traces_fingerprint(traces), **(facts or {})}
    with new_folder(path, Manifest("traces", seed, known, facts)) as folder:
        pq.write_table(table, folder / _TABLE)


def _plain_meta(trace: ReasoningTrace) -> str:
    try:
        return json.dumps(trace.meta, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"meta of trace {trace.document} is not plain data ({error}). Keep numbers and text only."
        ) from None


def load_traces(path: str | Path, *, tokenizer: str | None = None) -> list[ReasoningTrace]:
    """The traces of a folder written by `save_traces`, equal to those that were saved.

    tokenizer: the fingerprint of the tokenizer they are to be used with. Raises StoreError if the folder is missing,
    damaged or foreign, or if its token ids belong to another tokenizer.
    """
    import pyarrow.parquet as pq

    made_with = read_manifest(path, "traces").sources.get("tokenizer", "")
    if tokenizer is not None and made_with and made_with != tokenizer:
        raise StoreError(
            f"the traces in {path} were tokenised by another tokenizer ({made_with}) than this model's ({tokenizer}); "
            "their ids mean other words. Use the model that wrote them, or sample again."
        )
    rows = pq.read_table(Path(path) / _TABLE).to_pylist()
    return [
        ReasoningTrace(
            tuple(r["prompt_ids"]), tuple(r["response_ids"]), r["document"], r["group"], json.loads(r["meta"])
        )
        for r in rows
    ]
