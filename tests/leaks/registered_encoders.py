"""A schema class is made for each request and an encoder registered for it: the generic function keeps class and encoder.

source: 567-labs/instructor#2603
leaks: classes in the table of a generic function
holder: registry|encode|dispatch
seen: no
kind: class-registry
birth: the line that makes the class
steps: 150
"""

import functools
import sys


@functools.singledispatch
def encode(value):
    return repr(value)


def schema(request):
    fields = {f"field_{k}": k for k in range(request % 5 + 3)}
    kind = type(f"Answer{request}", (), {"fields": fields, "text": "x" * 4000 + str(request)})  # born here
    encode.register(kind, lambda value: f"{len(value.text)} {len(value.fields)}")
    return kind


def main(steps):
    total = 0
    for step in range(steps):
        for part in range(4):
            total += len(encode(schema(step * 4 + part)()))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
