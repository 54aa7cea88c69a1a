"""No leak: rows of a database in memory are inserted at each step, and those older than 40 steps deleted.

source: underworldcode/underworld2#46
holder: none
steps: 300
"""

import sqlite3
import sys


def main(steps):
    database = sqlite3.connect(":memory:")
    database.execute("create table history (step integer, state blob)")
    for step in range(steps):
        database.execute("insert into history values (?, ?)", (step, bytes(20_000)))
        database.execute("delete from history where step < ?", (step - 40,))
    print(database.execute("select count(*) from history").fetchone())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
