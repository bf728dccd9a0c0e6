"""The judge, asked over a real socket by OpenAI's own client."""

import http.server
import importlib.resources
import json
import re
import string
import threading

import pytest

from tml_jax.eval.suites.judge import TRIES, Judge, JudgeError, prompt_text, verdict_in


@pytest.fixture
def endpoint(monkeypatch):
    """An endpoint that says what stands in `replies`, one after the other; `asked` keeps the requests."""
    replies, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            reply = replies.pop(0)
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}
            answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
            content = json.dumps({"error": {"message": "no such model"}} if reply is None else answer).encode()
            self.send_response(404 if reply is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    yield f"http://127.0.0.1:{server.server_port}/v1", replies, asked
    server.shutdown()
    server.server_close()


def test_verdicts_are_asked_for_once_and_kept(endpoint, tmp_path):
    url, replies, asked = endpoint
    replies += ['It is fine. {"rating": 4}']
    words = {"context": "$5?", "interrupt": "And {now}?", "response": "Yes."}
    judge = Judge("m", url, tmp_path / "runs" / "log.jsonl")
    assert judge.number("fdb_v1_interruption", words, "rating", range(6)) == 4
    assert judge.number("fdb_v1_interruption", words, "rating", range(6)) == 4
    again = Judge("m", url, tmp_path / "runs" / "log.jsonl")
    assert again.number("fdb_v1_interruption", words, "rating", range(6)) == 4
    ((path, key, body),) = asked
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer any", "m", 0)
    question = body["messages"][0]["content"]
    assert "$5?" in question and "And {now}?" in question and "$context" not in question


def test_a_log_whose_last_line_was_cut_short_is_used_again_without_it(endpoint, tmp_path):
    url, replies, asked = endpoint
    replies += ['{"rating": 4}', '{"rating": 2}', '{"rating": 3}']
    log = tmp_path / "log.jsonl"
    words = [{"context": text, "interrupt": "x", "response": "y"} for text in ("one\u2028line", "two")]
    judge = Judge("m", url, log)
    assert [judge.number("fdb_v1_interruption", each, "rating", range(6)) for each in words] == [4, 2]
    whole = log.read_bytes()
    log.write_bytes(whole[:-9])
    again = Judge("m", url, log)
    assert [again.number("fdb_v1_interruption", each, "rating", range(6)) for each in words] == [4, 3]
    assert len(asked) == 3 and log.read_bytes().count(b"\n") == 2
    log.write_text('{"judge": "m"}\n')
    with pytest.raises(JudgeError, match="holds something else than judgements"):
        Judge("m", url, log)


def test_answers_that_are_not_as_asked_are_asked_for_again(endpoint):
    url, replies, asked = endpoint
    words = {"due": "3", "said": "three"}
    replies += ["Hm.", '{"correct": "perhaps"}', '{"correct": true} {"correct": false}']
    assert Judge("m", url).yes("big_bench_audio", words, "correct") == 0
    assert [body["seed"] for _, _, body in asked] == [0, 1, 2]
    replies += ["no"] * TRIES
    with pytest.raises(JudgeError, match="gives no valid 'correct' in 3 tries; it said 'no'"):
        Judge("m", url).yes("big_bench_audio", words, "correct")


def test_failures_of_the_endpoint_are_told(endpoint, monkeypatch):
    url, replies, _ = endpoint
    replies += [None]
    with pytest.raises(JudgeError, match="judge m fails: .*no such model"):
        Judge("m", url).yes("big_bench_audio", {"due": "3", "said": "three"}, "correct")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(JudgeError, match="set OPENAI_API_KEY"):
        Judge("m", url)


def test_verdict_is_the_last_object_with_the_field():
    said = 'Either {"score": 1} or {not json} or {"other": {"score": 9}} or\n```json\n{"score": 2, "why": "}"}\n```'
    assert verdict_in(said, "score") == {"score": 2, "why": "}"}
    assert verdict_in("score: 3", "score") is None


def test_prompts_show_the_object_that_they_ask_for():
    names = [
        file.name.removesuffix(".txt") for file in importlib.resources.files("tml_jax.eval.suites.prompts").iterdir()
    ]
    assert len(names) >= 10
    for name in names:
        text = prompt_text(name)
        assert string.Template(text).is_valid(), name
        assert verdict_in(text, re.findall(r'\{"(\w+)"', text)[-1]) is not None, name
