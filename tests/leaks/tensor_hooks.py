"""A relevance method hangs a hook on the embedding's weight at each pass and drops the handle: the weight keeps every hook.

source: chr5tphr/zennit#125
leaks: hooks with the activations that they close over
holder: _backward_hooks|weight|hook
seen: no
kind: hook
birth: the line that makes the hook
steps: 150
"""

import sys

import torch


class Relevance:
    def __init__(self, model):
        self.model, self.seen = model, 0.0

    def explain(self, tokens):
        values = self.model["embed"](tokens)
        kept = values.detach().clone()

        def scaled(gradient):  # born here
            self.seen += float(gradient.abs().sum() * kept.mean())

        self.model["embed"].weight.register_hook(scaled)
        return self.model["head"](values.mean(1)).sum()


def main(steps):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(50, 64), "head": torch.nn.Linear(64, 2)})
    relevance, total = Relevance(model), 0.0
    for step in range(steps):
        loss = relevance.explain(torch.randint(0, 50, (4, 60)))
        loss.backward()
        total += loss.item()
        model.zero_grad()
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
