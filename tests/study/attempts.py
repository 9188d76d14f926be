"""A count of the attempts at each run of a study, made where training begins.

Reports do not serve: the same outcome, reported by two processes, is reported once.
"""

import collections

WRITERS = {"writers": ("tests.study.attempts:Attempt",)}  # config.log


class Attempt:
    """A writer of the log, built once in every attempt; it writes no row."""

    def __init__(self, directory, config, rows):
        with open(directory.parent.parent / "attempts", "a") as file:
            file.write(f"{directory.name}\n")

    def write(self, row):
        pass

    def close(self):
        pass


def counted(directory):
    """The number of attempts at each run of the study in a directory, by name."""
    path = directory / "attempts"
    return collections.Counter(path.read_text().splitlines() if path.exists() else [])
