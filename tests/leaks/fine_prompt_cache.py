"""No leak: a cache of finished prompts fills to its budget of bytes and drops the oldest from then on.

source: ggml-org/llama.cpp#25740
holder: none
steps: 300
"""

import sys
from collections import OrderedDict

import torch


class PromptCache:
    def __init__(self, budget):
        self.budget, self.states = budget, OrderedDict()

    def save(self, prompt, state):
        self.states[prompt] = state
        while sum(one.nbytes for one in self.states.values()) > self.budget:
            self.states.popitem(last=False)


def main(steps):
    cache = PromptCache(budget=8 << 20)
    for step in range(steps):
        cache.save(f"prompt-{step}", torch.zeros(2, 64 + step % 7, 8, 32))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
