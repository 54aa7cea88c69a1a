"""A schema class is made for every message; the base class registers each subclass by name.

source: marshmallow-code/marshmallow#732
leaks: classes, a few kilobytes each
holder: registry|Schema
kind: class-registry
birth: the line that makes the class
steps: 400
"""

import sys


class Schema:
    registry = {}

    def __init_subclass__(cls):
        Schema.registry.setdefault(cls.__name__, []).append(cls)


def parse(number):
    fields = {f"field_{index}": index + number for index in range(40)}
    schema = type("Message", (Schema,), fields)  # born here
    return schema.field_3


def main(steps):
    total = 0
    for step in range(steps):
        for message in range(5):
            total += parse(step + message)
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
