"""Prompts and documents from files people have (.jsonl, .json, .txt), and their way into token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from overtone.core.errors import DataError, SettingError, nearest
from overtone.data.traces import ReasoningTrace

FIELDS = ("prompt", "question", "problem", "text", "instruction", "input")
"""Where a prompt is looked for in an object when no field is named, in this order."""


@dataclass(frozen=True)
class Text:
    """One prompt or document: its text (not empty), the group that splits go by, and the other fields of its record."""

    text: str
    group: str
    meta: dict[str, Any] = field(default_factory=dict)


def read_texts(path: str | Path, *, name: str | None = None, limit: int | None = None) -> list[Text]:
    """The texts of a file, in its order.

    .jsonl: one object or string per line. .json: a list of objects or strings, or an object holding one such list.
    .txt: one text per line, empty lines skipped. name: the field of an object that holds the text (default: the first
    of FIELDS that is there); "group" in an object is its group, else equal texts share one. limit: read that many.
    Raises DataError naming file and record for anything that is missing, empty, not text or not JSON.
    """
    path = Path(path)
    readers = {".jsonl": _from_jsonl, ".json": _from_json, ".txt": _from_txt}
    if path.suffix not in readers:
        raise DataError(f"{path}: texts are read from {', '.join(readers)}. Convert it or rename it.")
    if limit is not None and limit < 1:
        raise SettingError(f"limit={limit}: read at least one text, or leave it out for all.")
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Correct the path.") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"{path} is not a text file in UTF-8 ({type(error).__name__}). Convert it.") from None
    records = readers[path.suffix](content, path)
    texts = [_text(record, f"{path}, {place}", name) for place, record in islice(records, limit)]
    if not texts:
        raise DataError(f"{path} holds no text. Put at least one prompt into it.")
    return texts


def _from_txt(content: str, path: Path) -> Iterator[tuple[str, Any]]:
    del path
    return ((f"line {n}", line) for n, line in enumerate(content.splitlines(), 1) if line.strip())


def _from_jsonl(content: str, path: Path) -> Iterator[tuple[str, Any]]:
    for n, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield f"line {n}", _parsed(line, f"{path}, line {n}")


def _from_json(content: str, path: Path) -> Iterator[tuple[str, Any]]:
    data = _parsed(content, str(path))
    if isinstance(data, dict):
        lists = [v for v in data.values() if isinstance(v, list)]
        data = lists[0] if len(lists) == 1 else None
    if not isinstance(data, list):
        raise DataError(f"{path}: expected a list of texts or objects, or an object that holds one list.")
    return ((f"item {n}", record) for n, record in enumerate(data, 1))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is not JSON ({error}). Correct it or remove it.") from None


def _text(record: Any, where: str, name: str | None) -> Text:
    if isinstance(record, str) and name is None:
        record, key = {"text": record}, "text"
    elif isinstance(record, dict):
        key = name or next((f for f in FIELDS if f in record), None)
    else:
        wanted = f"an object with field {name!r}" if name else "a text or an object"
        raise DataError(f"{where}: expected {wanted}, got {type(record).__name__}.")
    if key is None or key not in record:
        wanted = f"no field {key!r}.{nearest(key, record)}" if key else f"none of the fields {', '.join(FIELDS)}."
        raise DataError(f"{where} has {wanted} It has: {', '.join(record) or 'nothing'}. Name the field with the text.")
    text = record[key]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where}: field {key!r} is {'empty' if text in ('', None) else f'{text!r:.40}'}, not a text.")
    group = str(record.get("group") or hashlib.sha256(text.encode()).hexdigest()[:16])
    return Text(text, group, {k: v for k, v in record.items() if k not in (key, "group")})


def encode_texts(
    tokenizer: Any, texts: Sequence[Text], *, chat: bool = False, longest: int | None = None
) -> list[ReasoningTrace]:
    """Texts as token ids: each becomes a prompt; a text field "response" in its meta becomes the response to it.

    tokenizer: a `transformers` tokenizer. chat: wrap each prompt in its chat template, ready for the model's turn.
    longest: keep at most so many tokens of each trace. Prompts get the start token that the tokenizer adds, and never
    an end token; responses get no special token. Document numbers count from 0. Raises SettingError if chat is asked of
    a tokenizer without template, DataError if a text gives no token.
    """
    if chat and not getattr(tokenizer, "chat_template", None):
        raise SettingError("this tokenizer has no chat template. Leave chat off, or load the model's own tokenizer.")
    traces = []
    for document, text in enumerate(texts):
        prompt = _prompt_ids(tokenizer, text.text, chat)[:longest]
        response = tokenizer.encode(str(text.meta.get("response") or ""), add_special_tokens=False)
        response = response if longest is None else response[: longest - len(prompt)]
        meta = {"prompt": text.text, **text.meta}
        traces.append(ReasoningTrace(tuple(prompt), tuple(response), document, text.group, meta))
    return traces


def _prompt_ids(tokenizer: Any, text: str, chat: bool) -> list[int]:
    if chat:
        turn = [{"role": "user", "content": text}]
        return list(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False))
    ids = list(tokenizer.encode(text))
    ends_itself = len(ids) > 1 and ids[-1] == tokenizer.eos_token_id
    return ids[:-1] if ends_itself else ids
