r"""A figure a step is saved and never closed; pyplot keeps them all.

source: quantopian/alphalens#241
leaks: figures with their canvas and artists
holder: pyplot|Gcf|\bfigs\b
kind: figures
birth: the line that opens the figure
steps: 45
"""

import io
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def report(values):
    figure, axes = plt.subplots(figsize=(2, 1.5))  # born here
    axes.plot(values)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=40)


def main(steps):
    matplotlib.rcParams["figure.max_open_warning"] = 0
    for step in range(steps):
        report(np.arange(500) * step)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 45)
