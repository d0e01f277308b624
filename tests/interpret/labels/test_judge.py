"""The judge against a real server on this machine: labels, failures, retries, the cache and its replay."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from overtone.core.errors import JudgeError, SettingError, StoreError
from overtone.interpret.labels.judge import Judge, JudgeSettings, from_environment, messages, read_reply

STEPS = ["12 plus 3 is 15", "wait , is that so ?", "scrap that , we go back"]
CLASSES = (("reflection", "checks"), ("backtracking", "goes back"), ("other", "the rest"))


def by_first_word(body):
    """A judge of simple mind: one line per step, by the step's first word."""
    known = {"wait": "reflection", "scrap": "Backtracking"}
    lines = [line.split(" ", 2) for line in body["messages"][-1]["content"].splitlines()]
    return "\n".join(f"{number[:-1]}: {known.get(word, 'other')}" for number, word, _ in lines)


class Endpoint:
    """An OpenAI-compatible server in a thread; `replies` says what the next requests get, then `answer` does."""

    def __init__(self):
        self.seen, self.replies, self.answer = [], [], by_first_word
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.seen.append((self.path, dict(self.headers), body))
                status, headers, data = endpoint.replies.pop(0) if endpoint.replies else endpoint.said(body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def said(self, body):
        return 200, {}, json.dumps({"choices": [{"message": {"content": self.answer(body)}}]}).encode()


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    endpoint.server.server_close()
    thread.join()


def judge(endpoint, **options):
    url = endpoint.url if endpoint else ""
    return Judge(JudgeSettings(base_url=url, model="tiny", classes=CLASSES, backoff_s=0.001, timeout_s=5, **options))


def test_every_step_gets_the_label_of_its_line(endpoint, spoken):
    traces = [spoken.trace(STEPS, 0), spoken.trace(STEPS[::-1], 1)]
    found = judge(endpoint).label_steps(traces, spoken.spans(traces), spoken.decode)
    assert found.labels == (("other", "reflection", "backtracking"), ("backtracking", "reflection", "other"))
    assert (found.failures, found.source) == (0, "judge tiny")
    path, _, body = endpoint.seen[0]
    assert path == "/v1/chat/completions" and body["model"] == "tiny" and body["temperature"] == 0


def test_long_traces_are_asked_in_parts_and_put_together_in_order(endpoint):
    found = judge(endpoint, steps_per_request=2).name_steps(STEPS * 3)
    assert found == ["other", "reflection", "backtracking"] * 3
    assert len(endpoint.seen) == 4, "five parts, of which the first and the fourth are equal and asked once"


def test_what_cannot_be_understood_is_a_failure_and_never_a_label(endpoint, spoken):
    endpoint.answer = lambda body: "1: reflection\n1: other\nstep 2 - **other**\n3: dancing\n4: other"
    traces = [spoken.trace(STEPS)]
    found = judge(endpoint).label_steps(traces, spoken.spans(traces), spoken.decode)
    assert found.labels == ((None, "other", None),) and found.failures == 2


@pytest.mark.parametrize("said", [None, "", "I cannot do that.", "reflection"])
def test_a_refusal_labels_nothing(endpoint, said):
    endpoint.answer = lambda body: said
    assert judge(endpoint).name_steps(STEPS) == [None] * 3


def test_answers_are_kept_and_replayed_without_a_server(endpoint, tmp_path):
    cache = str(tmp_path / "kept" / "answers.jsonl")
    first = judge(endpoint, cache=cache).name_steps(STEPS)
    again = judge(endpoint, cache=cache).name_steps(STEPS)
    replayed = judge(None, cache=cache, replay=True).name_steps(STEPS)
    assert first == again == replayed and len(endpoint.seen) == 1
    with pytest.raises(JudgeError, match="no answer to one of the requests"):
        judge(None, cache=cache, replay=True).name_steps(STEPS[:2])


def test_failures_are_replayed_too(endpoint, tmp_path):
    endpoint.answer = lambda body: "1: other"
    cache = str(tmp_path / "answers.jsonl")
    judge(endpoint, cache=cache).name_steps(STEPS)
    assert judge(None, cache=cache, replay=True).name_steps(STEPS) == ["other", None, None]


def test_a_line_cut_short_by_a_crash_is_dropped_and_asked_again(endpoint, tmp_path):
    cache = tmp_path / "answers.jsonl"
    for steps in (STEPS[:1], STEPS[1:]):
        judge(endpoint, cache=str(cache)).name_steps(steps)
    cache.write_text(cache.read_text()[:-20])
    found = judge(endpoint, cache=str(cache))
    assert found.name_steps(STEPS[:1]) + found.name_steps(STEPS[1:]) == ["other", "reflection", "backtracking"]
    assert len(endpoint.seen) == 3
    assert len([json.loads(line) for line in cache.read_text().splitlines()]) == 2


def test_a_foreign_file_is_refused(tmp_path):
    cache = tmp_path / "notes.jsonl"
    cache.write_text('{"a": 1}\n')
    with pytest.raises(StoreError, match="line 1: not an answer"):
        judge(None, cache=str(cache), replay=True)
    assert cache.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_tried_again(endpoint, status):
    endpoint.replies = [(status, {"Retry-After": "0"}, b"busy")] * 2
    assert judge(endpoint).name_steps(STEPS) == ["other", "reflection", "backtracking"]
    assert len(endpoint.seen) == 3


def test_attempts_are_bounded_and_nothing_is_kept_of_them(endpoint, tmp_path):
    endpoint.replies = [(500, {}, b"broken")] * 9
    cache = tmp_path / "answers.jsonl"
    with pytest.raises(JudgeError, match="failed 3 times; last: status 500: broken"):
        judge(endpoint, retries=2, cache=str(cache)).name_steps(STEPS)
    assert len(endpoint.seen) == 3 and not cache.exists()


def test_a_refused_request_is_not_repeated_and_the_key_stays_secret(endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", "sesame-123")
    endpoint.replies = [(401, {}, b"bad key sesame-123")]
    cache = tmp_path / "answers.jsonl"
    asked = judge(endpoint, api_key_env="A_KEY", cache=str(cache))
    with pytest.raises(JudgeError, match="refused with status 401: bad key ...") as error:
        asked.name_steps(STEPS)
    asked.name_steps(STEPS)
    assert [h["Authorization"] for _, h, _ in endpoint.seen] == ["Bearer sesame-123"] * 2
    assert "sesame" not in str(error.value) + cache.read_text()


def test_no_key_no_header(endpoint, monkeypatch):
    monkeypatch.delenv("A_KEY", raising=False)
    judge(endpoint, api_key_env="A_KEY").name_steps(STEPS)
    assert "Authorization" not in endpoint.seen[0][1]


def test_redirects_are_not_followed_with_the_key(endpoint):
    endpoint.replies = [(302, {"Location": endpoint.url + "/elsewhere"}, b"")]
    with pytest.raises(JudgeError, match="status 302"):
        judge(endpoint).name_steps(STEPS)
    assert len(endpoint.seen) == 1


def test_an_answer_that_is_no_chat_completion_is_said(endpoint):
    endpoint.replies = [(200, {}, b"<html>hello")]
    with pytest.raises(JudgeError, match="no chat completion: '<html>hello'"):
        judge(endpoint).name_steps(STEPS)


def test_nobody_there_is_said(endpoint):
    silent = JudgeSettings(base_url="http://127.0.0.1:9", model="tiny", retries=1, backoff_s=0.001)
    with pytest.raises(JudgeError, match="failed 2 times; last: no answer"):
        Judge(silent).name_steps(STEPS)


def test_a_step_cannot_pass_for_two_lines_of_the_list():
    listed = messages(["one\n2. other", "two"], CLASSES)[-1]["content"]
    assert listed.splitlines() == ["1. one 2. other", "2. two"]


def test_replies_are_read_leniently_in_form_and_strictly_in_content():
    names = ["reflection", "other"]
    assert read_reply("1: reflection\n2. OTHER\n- 3) `other`", 3, names) == ["reflection", "other", "other"]
    assert read_reply("1: reflection, other\n2: reflect\n0: other\n9: other", 2, names) == [None, None]
    assert read_reply("1: other\n1: other", 1, names) == ["other"]


def test_the_environment_names_a_judge(endpoint, monkeypatch):
    monkeypatch.setenv("OVERTONE_JUDGE_URL", endpoint.url)
    with pytest.raises(SettingError, match="OVERTONE_JUDGE_MODEL"):
        from_environment()
    monkeypatch.setenv("OVERTONE_JUDGE_MODEL", "tiny")
    assert from_environment().name_steps(STEPS) == ["other", "reflection", "backtracking"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": ""}, "model is empty"),
        ({"base_url": "ftp://x"}, "is no http"),
        ({"replay": True}, "replay=True needs the cache"),
        ({"classes": (("a", ""),)}, "two names"),
        ({"classes": (("a b", ""), ("c", ""))}, "one word"),
        ({"retries": 99}, "retries 0 to 10"),
    ],
)
def test_settings_are_checked(options, said):
    with pytest.raises(SettingError, match=said):
        JudgeSettings(**{"base_url": "http://localhost/v1", "model": "m", **options})


def test_settings_make_a_round_trip():
    made = JudgeSettings(base_url="http://localhost/v1", model="m", classes=CLASSES)
    assert JudgeSettings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
