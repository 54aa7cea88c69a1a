"""A long XML stream is read with a pull parser; the root element keeps every record that was parsed.

source: knadh/xmlutils.py#3
leaks: elements with their text
holder: root|\bparser\b|export
seen: no
kind: container
birth: the line that feeds the parser
steps: 200
"""

import sys
import xml.etree.ElementTree as ElementTree


def record(number):
    return f"<record id='{number}'><body>{'x' * 20_000}</body><note>{number}</note></record>"


def main(steps):
    export = ElementTree.XMLPullParser(events=("end",))
    export.feed("<export>")
    bodies = 0
    for step in range(steps):
        export.feed(record(step))  # born here
        for _, element in export.read_events():
            bodies += element.tag == "body"
    print(bodies)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
