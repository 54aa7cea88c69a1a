"""A GPT-2 training step: the model of the README.

    memfit predict examples/gpt2.py:training_step
    memfit profile examples/gpt2.py:training_step --compare
    memfit fit examples/gpt2.py:training_step --budget 33%

The model is transformers' own GPT-2 from a configuration, with random weights (nothing is downloaded) and dropout on.
The defaults are small enough for a laptop; the 124 million parameter GPT-2 is
``--set width=768 --set heads=12 --set vocabulary=50257``. ``python examples/gpt2.py`` trains it as any script would.
"""

from __future__ import annotations

import torch
import transformers

from memfit import Step

transformers.logging.set_verbosity_error()


def training_step(
    batch: int = 8, length: int = 256, layers: int = 12, width: int = 256, heads: int = 8, vocabulary: int = 8192,
    dropout: float = 0.1,
) -> Step:  # fmt: skip
    """One step of language-model training with AdamW on ``batch`` random texts of ``length`` tokens."""
    config = transformers.GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=max(length, 1024),
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, use_cache=False,
        bos_token_id=vocabulary - 1, eos_token_id=vocabulary - 1,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).train()
    tokens = torch.randint(vocabulary, (batch, length))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return Step(model, {"input_ids": tokens, "labels": tokens}, optimizer=optimizer)


def train(steps: int = 3) -> None:
    """The same step in a plain loop, as a script that `memfit profile` can run."""
    torch.manual_seed(0)
    step = training_step()
    for number in range(steps):
        loss = step.model(**step.inputs).loss
        loss.backward()
        step.optimizer.step()
        step.optimizer.zero_grad()
        print(f"step {number}: loss {loss.item():.4f}")


if __name__ == "__main__":
    train()
