"""A real server on this machine that speaks ``/v1/chat/completions``; a script says what it answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[dict[str, Any]], Any]
"""From a request's body to a text, a whole message, or ``(status, body)``."""


@dataclass
class Server:
    """``bodies`` and ``keys``: of the requests that came; ``most``: how many were under way at once.

    ``headers``: of every answer, besides its type and length.
    """

    say: Script
    delay: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    now: int = 0
    most: int = 0
    url: str = ""
    headers: dict[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any], key: str) -> tuple[int, Any]:
        with self.lock:
            self.bodies.append(body)
            self.keys.append(key)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(self.delay)
            said = self.say(body)
        finally:
            with self.lock:
                self.now -= 1
        if isinstance(said, tuple):
            return said
        message = {"role": "assistant", **(said if isinstance(said, dict) else {"content": said})}
        finish = message.pop("finish_reason", "stop")
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return 200, {
            "id": "1", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }  # fmt: skip


@contextmanager
def serve(say: Script, delay: float = 0.0) -> Iterator[Server]:
    server = Server(say, delay)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/v1/chat/completions":
                status, reply = server.answer(body, self.headers.get("Authorization", ""))
            else:
                status, reply = 404, {"error": {"message": "no such path"}}
            data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
            self.send_response(status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
