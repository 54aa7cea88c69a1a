r"""Each build of a rule system loads its rule file under a new module name and registers it, so that it stays importable.

source: PolicyEngine/policyengine-core#520
leaks: modules with their globals
holder: sys\.modules
seen: no
kind: class-registry
birth: the line that makes the module
steps: 120
"""

import importlib.util
import pathlib
import sys
import tempfile

RULES = """
import numpy as np
BRACKETS = np.linspace(0.0, 1.0, 4000)
class Income: label = "income"
def tax(income):
    return float(BRACKETS[int(income) % 4000])
"""


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)  # born here
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main(steps):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rules.py"
        path.write_text(RULES)
        total = 0.0
        for step in range(steps):
            total += load(path, f"system_{step}_rules").tax(step)
        print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
