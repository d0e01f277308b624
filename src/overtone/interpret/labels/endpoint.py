"""One question to an OpenAI-compatible endpoint over plain HTTP: bounded attempts, bounded answers, no dependency."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

from overtone.core.errors import JudgeError

MOST_BYTES = 2_000_000
WORTH_REPEATING = {408, 409, 425, 429, 500, 502, 503, 504}
LONGEST_PAUSE_S = 60.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address, and turn the POST into a GET."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class _Again(Exception):
    """This attempt failed in a way that may pass; pause_s is what the server asked for, if it did."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def ask(
    request: dict[str, Any], base_url: str, *, key_from: str, timeout_s: float, retries: int, backoff_s: float
) -> str:
    """The text of the first choice that `base_url`/chat/completions answers to a request body.

    key_from: environment variable with the key, sent as a bearer token if set; it appears in no message. retries:
    further attempts after time-outs, lost connections and the statuses 408, 409, 425, 429, 5xx; pauses start at
    backoff_s, double, respect Retry-After and never exceed 60 s. Raises JudgeError after the last attempt, at once
    for other statuses, or if the answer is not a chat completion; a completion without text gives "".
    """
    reason = ""
    for attempt in range(retries + 1):
        try:
            return _content(_post(request, f"{base_url.rstrip('/')}/chat/completions", key_from, timeout_s))
        except _Again as error:
            reason = str(error)
            if attempt < retries:
                time.sleep(min(LONGEST_PAUSE_S, max(error.pause_s, backoff_s * 2**attempt)))
    raise JudgeError(
        f"the judge at {base_url} failed {retries + 1} times; last: {reason}. Check that it runs, then go on."
    )


def _post(request: dict[str, Any], url: str, key_from: str, timeout_s: float) -> bytes:
    headers = {"Content-Type": "application/json"}
    key = os.environ.get(key_from, "") if key_from else ""
    if key:
        headers["Authorization"] = f"Bearer {key}"
    post = urllib.request.Request(url, json.dumps(request).encode(), headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirects).open(post, timeout=timeout_s) as response:
            return response.read(MOST_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, url, key)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _Again(f"no answer ({getattr(error, 'reason', error)})") from None
    raise AssertionError("unreachable")


def _refused(error: urllib.error.HTTPError, url: str, key: str) -> None:
    said = error.read(300).decode("utf-8", "replace")
    said = said.replace(key, "...") if key else said
    if error.code in WORTH_REPEATING:
        pause = error.headers.get("Retry-After", "")
        raise _Again(f"status {error.code}: {said}", float(pause) if pause.isdigit() else 0.0)
    raise JudgeError(f"the judge at {url} refused with status {error.code}: {said}. Check address, key and model name.")


def _content(answer: bytes) -> str:
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        excerpt = answer[:200].decode("utf-8", "replace")
        raise JudgeError(
            f"the judge answered something that is no chat completion: {excerpt!r}. Check base_url."
        ) from None
    return content if isinstance(content, str) else ""  # a refusal or a tool call: nothing that could be a label
