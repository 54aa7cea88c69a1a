"""The state of every time step goes into a database in memory, and the rows of old steps are never deleted.

source: underworldcode/underworld2#46
leaks: pages of the database, outside Python
holder: sqlite|database|connection
seen: no
kind: native
birth: the line that inserts
steps: 200
"""

import sqlite3
import sys

import numpy as np


def main(steps):
    database = sqlite3.connect(":memory:")
    database.execute("create table history (step integer, field text, state blob)")
    random, total = np.random.default_rng(0), 0.0
    for step in range(steps):
        state = random.random(3000)
        database.execute("insert into history values (?, ?, ?)", (step, "temperature", state.tobytes()))  # born here
        total += float(state.mean())
    print(total, database.execute("select count(*) from history").fetchone())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
