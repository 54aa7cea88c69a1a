"""No leak: a table of connections in a database in memory, from which the oldest rows are deleted beyond a limit.

source: evilsocket/opensnitch#1030
holder: none
seen: no
steps: 240
"""

import sqlite3
import sys


def main(steps):
    database = sqlite3.connect(":memory:")
    database.execute("create table connections (id integer primary key, remark text)")
    for step in range(steps):
        rows = [(f"connection {step}/{k} " * 30,) for k in range(20)]
        database.executemany("insert into connections (remark) values (?)", rows)
        database.execute("delete from connections where id <= (select max(id) from connections) - 1200")
    print(database.execute("select count(*) from connections").fetchone())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 240)
