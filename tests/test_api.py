"""Models behind an endpoint, against a real HTTP server on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from endpoint import serve
from test_readme import blocks

from hiplan import Agent, ApiModel, Decoding, Endpoint, Task
from hiplan.errors import ConfigError, EndpointError
from hiplan.model import Request
from hiplan.models.api import Reply, Usage, chat_messages
from hiplan.prompts import FULL
from hiplan.trace import Conversation

pytest.importorskip("openai")
OVERLOADED = (429, {"error": {"message": "too many requests"}})
BROKEN = (500, {"error": {"message": "oops"}})


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def last_words(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def echo(body: dict[str, Any]) -> str:
    return f"re: {last_words(body)}"


# -- the endpoint -----------------------------------------------------------------------------


def test_answers_come_in_order_and_are_counted() -> None:
    with serve(echo) as server:
        endpoint = Endpoint(server.url, "m", prices=(2.0, 10.0))
        replies = endpoint.ask([asking(str(i)) for i in range(5)])
    assert [r.text for r in replies] == [f"re: {i}" for i in range(5)]
    assert endpoint.usage == Usage(requests=5, cached=0, prompt_tokens=500, completion_tokens=50)
    assert endpoint.cost == pytest.approx(0.0015)  # (500 * 2 + 50 * 10) / 1e6
    assert Endpoint("http://localhost:1/v1", "m").cost is None


def test_a_cached_answer_does_not_reach_the_server(tmp_path: Path) -> None:
    with serve(echo) as server:
        first = Endpoint(server.url, "m", cache=tmp_path)
        said = first.ask([asking("a", seed=1), asking("b", seed=1)])
        again = Endpoint(server.url, "m", cache=tmp_path, prices=(1.0, 1.0))
        assert again.ask([asking("a", seed=1), asking("b", seed=1)]) == said
        assert len(server.bodies) == 2
        assert again.usage == Usage(requests=0, cached=2)
        assert again.cost == 0
        assert len(list(tmp_path.iterdir())) == 2


def test_with_a_cache_equal_requests_of_a_batch_are_asked_once(tmp_path: Path) -> None:
    with serve(echo, delay=0.05) as server:
        endpoint = Endpoint(server.url, "m", cache=tmp_path)
        said = endpoint.ask([asking("a"), asking("b"), asking("a"), asking("a")])
        assert [r.text for r in said] == ["re: a", "re: b", "re: a", "re: a"]
        assert (len(server.bodies), endpoint.usage.requests, endpoint.usage.cached) == (2, 2, 2)
        Endpoint(server.url, "m").ask([asking("a"), asking("a")])
        assert len(server.bodies) == 4


@pytest.mark.parametrize(
    "other", [{"seed": 2}, {"temperature": 0.5}, {"max_tokens": 9}, {"messages": [{"role": "system", "content": "a"}]}]
)
def test_whatever_determines_the_answer_is_part_of_the_cache_key(tmp_path: Path, other: dict[str, Any]) -> None:
    with serve(echo) as server:
        endpoint = Endpoint(server.url, "m", cache=tmp_path)
        endpoint.ask([asking("a", seed=1)])
        endpoint.ask([asking("a", seed=1) | other])
        assert len(server.bodies) == 2
        Endpoint(server.url, "other", cache=tmp_path).ask([asking("a", seed=1)])
        Endpoint(server.url, "m", cache=tmp_path, body={"top_k": 1}).ask([asking("a", seed=1)])
        Endpoint(server.url + "/", "m", cache=tmp_path).ask([asking("a", seed=1)])
        assert len(server.bodies) == 5


@pytest.mark.parametrize("junk", ["", "{", "[]", "null", '{"reply": {"text": 3}}', '{"reply": {"finish": "stop"}}'])
def test_a_broken_cache_entry_is_asked_for_again_and_mended(tmp_path: Path, junk: str) -> None:
    with serve(echo) as server:
        endpoint = Endpoint(server.url, "m", cache=tmp_path)
        endpoint.ask([asking("a")])
        (entry,) = tmp_path.iterdir()
        whole = entry.read_bytes()
        entry.write_text(junk)
        assert endpoint.ask([asking("a")]) == [Reply(text="re: a", prompt_tokens=100, completion_tokens=10)]
        assert entry.read_bytes() == whole
        assert len(server.bodies) == 2


@pytest.mark.parametrize("trouble", [OVERLOADED, BROKEN])
def test_a_full_or_failing_server_is_asked_again(trouble: Any) -> None:
    left = [trouble, trouble]
    with serve(lambda body: left.pop() if left else "fine") as server:
        endpoint = Endpoint(server.url, "m", retries=2)
        assert endpoint.ask([asking("a")])[0].text == "fine"
        assert len(server.bodies) == 3
        assert endpoint.usage.requests == 1
        left += [trouble, trouble]
        with pytest.raises(EndpointError, match=rf"answered {trouble[0]} .*tried 2 times"):
            Endpoint(server.url, "m", retries=1).ask([asking("a")])
        assert len(server.bodies) == 5


def test_tries_are_counted_where_the_client_gives_up_early() -> None:
    """A server that asks for an hour's wait is not asked again."""
    with serve(lambda body: OVERLOADED) as server:
        server.headers["retry-after-ms"] = "3600000"
        with pytest.raises(EndpointError, match=r"answered 429 .*\(tried once; wait"):
            Endpoint(server.url, "m", retries=3).ask([asking("a")])
        assert len(server.bodies) == 1
        gone = server.url
    with pytest.raises(EndpointError, match="cannot be reached, tried 2 times"):
        Endpoint(gone, "m", retries=1).ask([asking("a")])


def test_no_more_requests_at_once_than_allowed() -> None:
    with serve(echo, delay=0.05) as server:
        endpoint = Endpoint(server.url, "m", concurrency=3)
        endpoint.ask([asking(str(i)) for i in range(9)])
    assert server.most == 3


def test_the_key_is_sent_and_told_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-123\n")
    refuse = (401, {"error": {"message": "Incorrect API key provided: sk-secret-123."}})
    with serve(lambda body: refuse if last_words(body) == "no" else "yes") as server:
        endpoint = Endpoint(server.url, "m", key_env="MY_KEY", cache=tmp_path)
        endpoint.ask([asking("a")])
        assert server.keys == ["Bearer sk-secret-123"]
        with pytest.raises(EndpointError) as caught:
            endpoint.ask([asking("no")])
    message = str(caught.value)
    assert server.url in message and "401" in message and "check the key in MY_KEY" in message
    assert "Incorrect API key provided: ***" in message and "\n" not in message
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert "sk-secret" not in repr(endpoint) + message + "".join(p.read_text() for p in tmp_path.iterdir())


def test_without_key_env_no_key_of_the_user_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-123")
    with serve(echo) as server:
        Endpoint(server.url, "m").ask([asking("a")])
    assert server.keys == ["Bearer none"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "looks like 'http://localhost:8000/v1', got 'localhost:8000'"),
        ({"url": "http://me:pw-secret@host/v1"}, "of 'm' holds a password"),
        ({"url": "me:pw-secret@host/v1"}, "of 'm' holds a password"),
        ({"url": "http:///v1"}, "got 'http:///v1'"),
        ({"url": "http://host/v1?key=pw-secret"}, "of 'm' holds a password or a query"),
        ({"key_env": "UNSET_KEY"}, "'UNSET_KEY' is empty; put the key of 'http://localhost:1/v1' there"),
        ({"key_env": "ODD_KEY"}, "'ODD_KEY' holds is no key"),
        ({"concurrency": 0}, "a concurrency of at least 1"),
        ({"timeout": 0.0}, "a timeout in seconds above 0"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_KEY", "pw-secret\nX-Other: 1")
    with pytest.raises(ConfigError) as caught:
        Endpoint(**{"url": "http://localhost:1/v1", "model": "m", **settings})
    assert message in str(caught.value) and "pw-secret" not in str(caught.value)


def test_what_is_wrong_with_an_endpoint_is_said_in_one_line() -> None:
    with serve(lambda body: (200, "<html>hello</html>")) as server:
        with pytest.raises(EndpointError, match=r"no chat completion .*check the address"):
            Endpoint(server.url, "m").ask([asking("a")])
        with pytest.raises(EndpointError, match=r"answered 404 .*often ends in /v1.*no such path"):
            Endpoint(server.url.removesuffix("/v1"), "m").ask([asking("a")])
        gone = server.url
    with pytest.raises(EndpointError, match=rf"{gone}' \(model 'm'\) cannot be reached, tried once; is the server"):
        Endpoint(gone, "m", retries=0).ask([asking("a")])
    with (
        serve(echo, delay=0.5) as server,
        pytest.raises(EndpointError, match=r"no answer in 0.05 seconds, tried once; give it more time"),
    ):
        Endpoint(server.url, "m", retries=0, timeout=0.05).ask([asking("a")])


def test_one_bad_request_fails_the_batch_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    with serve(lambda body: (400, {"error": {"message": "bad"}}) if last_words(body) == "1" else "fine") as server:
        endpoint = Endpoint(server.url, "m", concurrency=1, cache=tmp_path)
        with pytest.raises(EndpointError, match="answered 400"):
            endpoint.ask([asking(str(i)) for i in range(20)])
        assert endpoint.ask([asking("0")])[0].text == "fine"
        asked = [last_words(body) for body in server.bodies]
    assert asked[:2] == ["0", "1"] and asked.count("0") == 1 and len(asked) < 20


def test_openai_is_asked_for_only_where_it_is_needed() -> None:
    code = """
import sys
sys.modules["openai"] = None
import hiplan
from hiplan import ApiModel, Endpoint
print("torch" in sys.modules)
try:
    Endpoint("http://localhost:1/v1", "m")
except hiplan.UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nan endpoint needs openai; install it with pip install 'hiplan[api]'\n"


# -- the model --------------------------------------------------------------------------------


def conversation() -> Conversation:
    talk = Conversation("executor")
    talk.ask("be brief", 0, author="system")
    talk.ask("the task", 0)
    talk.ask("the plan", 0)
    talk.answer("go", "action", 0, reasoning="hm")
    talk.ask("seen", 1)
    return talk


def test_a_conversation_becomes_chat_messages() -> None:
    said = [("user", "the task\n\nthe plan"), ("assistant", "go"), ("user", "seen")]
    assert [(m["role"], m["content"]) for m in chat_messages(conversation())] == [("system", "be brief"), *said]
    merged = [(m["role"], m["content"]) for m in chat_messages(conversation(), system_turn=False)]
    assert merged == [("user", "be brief\n\nthe task\n\nthe plan"), *said[1:]]


def test_decoding_and_seed_are_passed_on() -> None:
    decoding, seed = Decoding(0.7, plan_tokens=40, action_tokens=7), 2**31 * 5 + 3
    with serve(echo) as server:
        endpoint = Endpoint(server.url, "m", body={"seed": None, "top_k": 5})
        for where in (Endpoint(server.url, "m"), endpoint):
            for role in ("executor", "planner"):
                talk = Conversation(role)  # type: ignore[arg-type]
                talk.ask("hello", 0)
                (said,) = ApiModel(where).complete([Request(talk, decoding, seed)])
                assert (said.text, said.ids, said.finish) == ("re: hello", (), "stop")
    assert [(b["temperature"], b["max_tokens"]) for b in server.bodies] == [(0.7, 7), (0.7, 40)] * 2
    assert [b.get("seed") for b in server.bodies] == [3, 3, None, None]
    assert [b.get("top_k") for b in server.bodies] == [None, None, 5, 5]


@pytest.mark.parametrize(
    ("said", "text", "reasoning", "finish"),
    [
        ({"content": "go", "reasoning_content": "hm"}, "go", "hm", "stop"),
        ({"content": "go", "reasoning": "hm"}, "go", "hm", "stop"),
        ({"content": "<think>\nhm\n</think>\n\ngo"}, "go", "hm", "stop"),
        ({"content": "hm\n</think>\ngo"}, "go", "hm", "stop"),
        ({"content": "<think>\nhm", "finish_reason": "length"}, "", "hm", "length"),
        ({"content": "go no", "finish_reason": "length"}, "go no", "", "length"),
        ({"content": None, "refusal": "no"}, "", "", "stop"),
        (
            (400, {"error": {"message": "This model's maximum context length is 8 tokens.", "code": 400}}),
            "",
            "",
            "window",
        ),
        ((400, {"error": {"message": "the request exceeds the available context size"}}), "", "", "window"),
        ((400, {"error": {"code": "context_length_exceeded", "message": "too much"}}), "", "", "window"),
    ],
)
def test_what_came_of_a_request(said: Any, text: str, reasoning: str, finish: str) -> None:
    with serve(lambda body: said) as server:
        model = ApiModel(Endpoint(server.url, "m"))
        (done,) = model.complete([Request(conversation(), Decoding())])
    assert (done.text, done.reasoning, done.finish) == (text, reasoning, finish)


def test_an_agent_plays_on_an_endpoint() -> None:
    task = Task(env="household", params={"seed": 7, "kind": "put", "places": 3})

    def say(body: dict[str, Any]) -> str:
        planner = body["messages"][0]["content"].startswith("You plan")
        return "1. find the thing" if planner else "I look around.\nAction: look"

    with serve(say) as server:
        episode = Agent(ApiModel(Endpoint(server.url, "m"))).run(task)
    assert episode.plan is not None and [s.description for s in episode.plan.steps] == ["find the thing"]
    assert {turn.action for turn in episode.turns} == {"look"}
    assert server.bodies[0]["messages"][1]["content"] == FULL.plan(episode)


DOCS = Path(__file__).parents[1] / "docs" / "judges.md"


@pytest.mark.parametrize(("which", "said"), [(0, "scores: PlanScore(correctness=4.0"), (1, "stuck Usage(requests=")])
def test_python_in_the_docs_runs(which: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def say(body: dict[str, Any]) -> str:
        judged = body["messages"][0]["content"].startswith("You judge")
        return '{"correctness": 4, "followability": 5, "standardisation": 5}' if judged else "1. hm"

    found = blocks(DOCS.read_text(encoding="utf-8"))
    assert len(found) == 2
    with serve(say) as server:
        exec(found[which][1].replace("http://localhost:8000/v1", server.url), {})
    assert said in capsys.readouterr().out and server.bodies
