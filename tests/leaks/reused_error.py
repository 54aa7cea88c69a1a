"""A refusal is made once as a constant of the module and raised for every bad request; each raise adds frames to its traceback.

source: Kludex/starlette#3205
leaks: the frames of a request, with its body, for every refusal
holder: UNAUTHORIZED|__traceback__
kind: exception
birth: the line that reads the body
seen: no
steps: 200
"""

import sys


class RefusedError(Exception):
    def __init__(self, status):
        super().__init__(status)
        self.status = status


UNAUTHORIZED = RefusedError(401)


def authorize(headers):
    if headers.get("token") != "right":
        raise UNAUTHORIZED


def handle(number):
    body = bytes(40_000 + number % 7)  # born here
    authorize({"token": "wrong", "length": len(body)})
    return 200


def main(steps):
    refused = 0
    for step in range(steps):
        try:
            handle(step)
        except RefusedError as error:
            refused += error.status == 401
    print(refused)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
