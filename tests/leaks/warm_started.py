"""An ensemble is fitted further with every chunk of a stream by asking for one more tree; no tree is ever dropped.

source: scikit-learn/scikit-learn#5385
leaks: a tree for every chunk
holder: estimators_
kind: growing-object
birth: the line that fits the ensemble
seen: no
needs: sklearn
steps: 80
"""

import sys

import numpy
from sklearn.ensemble import GradientBoostingRegressor


def main(steps):
    generator = numpy.random.default_rng(0)
    model = GradientBoostingRegressor(n_estimators=1, max_depth=8, warm_start=True)
    for step in range(steps):
        x = generator.random((300, 8))
        model.set_params(n_estimators=step + 1)
        model.fit(x, x.sum(1) + generator.random(300))  # born here
    print(len(model.estimators_))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 80)
