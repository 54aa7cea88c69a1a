"""Features of a mesh are kept under the mesh in a dictionary with weak keys, and know their mesh: the key never dies.

source: python/cpython#88846
leaks: meshes with their features
holder: _features
seen: no
kind: weakref-callback
birth: the line that makes the features
steps: 150
"""

import sys
import weakref

import numpy as np


class Mesh:
    def __init__(self, points):
        self.points = points


class Features:
    def __init__(self, mesh):
        self.mesh = mesh
        self.edges = np.diff(mesh.points)


class Describer:
    def __init__(self):
        self._features = weakref.WeakKeyDictionary()

    def describe(self, mesh):
        if mesh not in self._features:
            self._features[mesh] = Features(mesh)  # born here
        return float(self._features[mesh].edges.sum())


def main(steps):
    describer = Describer()
    total = 0.0
    for step in range(steps):
        total += describer.describe(Mesh(np.arange(4000.0) * step))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
