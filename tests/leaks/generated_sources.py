"""A loader is compiled from generated source for every request, and the source is put into linecache for tracebacks.

source: reagento/adaptix#461
leaks: the lines of each generated function
holder: linecache
kind: container
birth: the line that splits the source into lines
steps: 150
"""

import linecache
import sys

counter = 0


def compiled(fields):
    global counter
    counter += 1
    name = f"<loader generated {counter}>"
    source = "def load(row):\n" + "".join(f"    field_{k} = row[{k % 3}]  # request {counter}\n" for k in range(fields))
    source += "    return field_0\n"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)  # born here
    space = {}
    exec(compile(source, name, "exec"), space)
    return space["load"]


def main(steps):
    total = 0
    for step in range(steps):
        total += compiled(300)((step, 1, 2))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
