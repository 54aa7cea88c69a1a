"""The learning rate is a static argument of the jitted update, and the schedule gives a new one in every step.

source: mlaux1/rl-blox#157
leaks: one compiled program a rate
holder: jit|compil|jax|update
seen: no
kind: compile-cache
birth: the line that calls the update
steps: 50
needs: jax
"""

import functools
import sys

import jax
import jax.numpy as jnp


def loss(weights, values):
    return jnp.square(jnp.tanh(values @ weights)).mean()


@functools.partial(jax.jit, static_argnames="rate")
def update(weights, values, rate):
    return weights - rate * jax.grad(loss)(weights, values)


def main(steps):
    weights, values = jnp.ones((16, 16)), jnp.ones((4, 16))
    for step in range(steps):
        weights = update(weights, values, rate=0.1 / (1 + step))  # born here
    print(float(weights.sum()))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
