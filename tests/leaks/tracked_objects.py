"""The table of tracks is a default of the class, so every tracker of every video writes into the same one.

source: talmolab/sleap-nn#574
leaks: tracks of all videos
holder: _track_objects
seen: no
kind: container
birth: the line that makes the track
steps: 120
"""

import sys

import numpy as np


class Track:
    __slots__ = ("history", "identity")

    def __init__(self, identity, history):
        self.identity, self.history = identity, history


class Tracker:
    _track_objects = {}

    def __init__(self, video):
        self.video = video

    def track(self, frames):
        for number, frame in enumerate(frames):
            key = (self.video, number)
            if key not in self._track_objects:
                self._track_objects[key] = Track(key, frame * 2)  # born here
        return len(frames)


def main(steps):
    random, total = np.random.default_rng(0), 0
    for step in range(steps):
        total += Tracker(f"video-{step}").track([random.random(800) for _ in range(8)])
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
