"""Each answer of a chat back end carries the raw output of its generation, key/value cache and all, in its metadata.

source: generative-computing/mellea#544
leaks: the keys and values of every generation
holder: \bturns\b|_meta|session
seen: no
kind: request-cache
birth: the line that runs the layer
steps: 150
"""

import sys

import torch
from torch import nn


class Backend:
    def __init__(self):
        self.project = nn.Linear(64, 192)

    @torch.no_grad()
    def generate(self, prompt):
        query, keys, values = self.project(prompt).chunk(3, dim=-1)  # born here
        scores = (query @ keys.transpose(0, 1)).softmax(-1)
        return {"text": float((scores @ values).mean()), "cache": (keys, values)}


class Answer:
    def __init__(self, output):
        self.text = output["text"]
        self._meta = {"output": output}


class Session:
    def __init__(self, backend):
        self.backend, self.turns = backend, []

    def ask(self, prompt):
        answer = Answer(self.backend.generate(prompt))
        self.turns.append(answer)
        return answer.text


def main(steps):
    torch.manual_seed(0)
    session = Session(Backend())
    total = 0.0
    for step in range(steps):
        total += session.ask(torch.randn(128, 64))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
