"""A small inference service over HTTP that watches itself, with a slow leak that can be switched on.

    python examples/answering_service.py --soak 5000            # asks itself over loopback; sound
    python examples/answering_service.py --soak 5000 --leak     # remembers every request for good
    memfit leaks --pid N                                        # from another terminal; the service prints its N

A request is a text, the answer the most likely of eight labels by a small network over hashed words. Answers are kept in a
cache that is bounded, and fills up: that is no leak. With ``--leak`` each request also leaves its features (4 KiB) behind under
a number of its own. Only loopback is listened on, and texts longer than 64 KiB are refused.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import itertools
import json
import os
import threading
from collections import OrderedDict

import numpy as np

import memfit

WIDTH, HIDDEN, LABELS = 1024, 256, 8
LONGEST_TEXT = 64 << 10


class Model:
    """Hashed words through two layers."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.first = random.normal(0, WIDTH**-0.5, (WIDTH, HIDDEN)).astype(np.float32)
        self.second = random.normal(0, HIDDEN**-0.5, (HIDDEN, LABELS)).astype(np.float32)

    def features(self, text: str) -> np.ndarray:
        """How often the words of each bucket occur."""
        found = np.zeros(WIDTH, np.float32)
        for word in text.split():
            found[sum(word.encode()) * 31 % WIDTH] += 1
        return found

    def label(self, features: np.ndarray) -> int:
        """The most likely label."""
        return int((np.maximum(features @ self.first, 0) @ self.second).argmax())


class Answers:
    """What the service keeps from request to request."""

    def __init__(self, leak: bool, most_cached: int = 200) -> None:
        self.model, self.leak, self.most_cached = Model(), leak, most_cached
        self.cache: OrderedDict[str, int] = OrderedDict()
        self.remembered: dict[int, np.ndarray] = {}
        self.numbers = itertools.count()
        self.lock = threading.Lock()

    def answer(self, text: str) -> dict[str, object]:
        """The label of a text, from the cache where it is there."""
        number = next(self.numbers)
        features = self.model.features(text)
        if self.leak:
            self.remembered[number] = features
        with self.lock:
            label = self.cache.get(text)
            if label is None:
                label = self.cache[text] = self.model.label(features)
                if len(self.cache) > self.most_cached:
                    self.cache.popitem(last=False)
            else:
                self.cache.move_to_end(text)
        return {"request": number, "label": label}


class Handler(http.server.BaseHTTPRequestHandler):
    """POST a text, get JSON."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    answers: Answers

    def do_POST(self) -> None:
        """Answer one request."""
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= LONGEST_TEXT:
            self.send_error(413 if length > LONGEST_TEXT else 411)
            return
        text = self.rfile.read(length).decode("utf-8", "replace")
        body = json.dumps(self.answers.answer(text)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing on each request."""


def ask(port: int, texts: list[str]) -> list[int]:
    """The labels of texts, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    labels = []
    for text in texts:
        connection.request("POST", "/", text.encode())
        labels.append(json.loads(connection.getresponse().read())["label"])
    connection.close()
    return labels


def main() -> None:
    """Serve, and with ``--soak`` ask as often as that."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--leak", action="store_true", help="remember every request")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="ask N times over loopback, then end")
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="between two samples of the watching"
    )
    given = parser.parse_args()
    Handler.answers = Answers(given.leak)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
    service = memfit.watch.serve(seconds=given.every)
    print(f"process {os.getpid()} answers on port {server.server_port}", flush=True)
    if not given.soak:
        server.serve_forever()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for asked in range(0, given.soak, 50):
        texts = [f"request {number % 700} of a soak, {'word ' * (number % 40)}" for number in range(asked, asked + 50)]
        ask(server.server_port, texts)
        if asked % 500 == 450:
            print(f"{asked + 50} answered", flush=True)
    service.stop()
    server.shutdown()


if __name__ == "__main__":
    main()
