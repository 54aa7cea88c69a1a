"""Each iteration adds a callback that closes over that iteration's image; the list of callbacks only grows.

source: cdtools-developers/cdtools#87
leaks: closures with a tensor each
holder: callbacks
kind: container
birth: the line that makes the image
steps: 150
"""

import sys

import torch


class Figure:
    def __init__(self):
        self.callbacks = []

    def on_redraw(self, function):
        self.callbacks.append(function)


def inspect(figure, step):
    image = torch.full((128, 128), float(step))  # born here
    figure.on_redraw(lambda: image.mean())


def main(steps):
    figure = Figure()
    for step in range(steps):
        inspect(figure, step)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
