"""Each change of the camera's region makes new shared buffers; the old ones stay mapped in the list of all buffers.

source: TheDeanLab/navigate#1072
leaks: mapped pages of shared memory
holder: segments
kind: native
birth: the line that makes the segment
steps: 120
"""

import mmap
import sys


class Camera:
    def __init__(self):
        self.segments = []
        self.current = None

    def resize(self, nbytes):
        self.current = mmap.mmap(-1, nbytes)  # born here
        self.current[:] = b"\1" * nbytes
        self.segments.append(self.current)


def main(steps):
    camera = Camera()
    for step in range(steps):
        camera.resize(128 * 1024)
    print(len(camera.current))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
