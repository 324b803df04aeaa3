"""An API key is sent to its endpoint and appears nowhere else: in no traceback, message or file."""

import importlib
from pathlib import Path

import pytest
from commands import Call, one_line
from endpoint import serve

from hiplan import Endpoint
from hiplan.errors import ConfigError, EndpointError

pytest.importorskip("openai")
ROOT, KEY = Path(__file__).resolve().parents[1], "sk-secret-123"
UNUSABLE = [
    ("SSL_CERT_FILE", "/nonexist"),
    ("SSLKEYLOGFILE", "/nonexist/log"),
    ("HTTP_PROXY", "foo://x"),
    ("HTTP_PROXY", "foo://me:pw-secret@x"),
    ("ALL_PROXY", f"foo://{KEY}"),
]


@pytest.mark.parametrize("module", ["hiplan.cli.app", "experiments.run", "experiments.kill_check"])
def test_no_command_shows_local_variables_in_a_traceback(module: str) -> None:
    """typer 0.16, the oldest that may be installed, shows them unless it is told not to."""
    app = importlib.import_module(module).app
    assert not app.pretty_exceptions_enable and not app.pretty_exceptions_show_locals


@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_a_client_that_cannot_be_made_is_one_line(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"no client for the endpoint .* can be made .*{name}") as caught:
        Endpoint("http://localhost:1/v1", "m", key_env="MY_KEY")
    message = str(caught.value)
    assert "secret" not in message and "\n" not in message
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_request_that_cannot_be_sent_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serve(lambda body: "fine") as server:
        endpoint = Endpoint(server.url, "m", key_env="MY_KEY")
        with pytest.raises(EndpointError, match=r"cannot be asked: UnicodeEncodeError") as caught:
            endpoint.ask([{"messages": [{"role": "user", "content": f"\ud800\n{KEY}"}]}])
        assert endpoint.ask([{"messages": [{"role": "user", "content": "hello"}]}])[0].text == "fine"
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("timeout", [".nan", ".inf", "60"])
def test_the_command_says_it_in_one_line(
    timeout: str, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = f"planner={{url: 'http://localhost:1/v1', model: m, key_env: MY_KEY, timeout: {timeout}}}"
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexist")
    done = call("plans", tmp_path / "p.jsonl", "--set", planner)
    one_line(done, "SSL_CERT_FILE" if timeout == "60" else "planner.timeout: input should be a finite number")
    assert KEY not in done.out + done.err
