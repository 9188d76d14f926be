"""Run a benchmark, one subject at a time.

  python -m experiments.benchmark [SUBJECT] [--help] [--flags of the subject]

steps      train steps of networks, in this package and other frameworks (default)
compile    compile time of a train step, by depth
profile    time of a train step, by kind of operation
data       reading a prepared set into memory, uncached and cached
decode     decoding and augmenting image files, in this package and other libraries
landscape  a loss landscape as one program, or in a loop over points
reading    training on strings of digits, by string length
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from experiments import launch

SUBJECTS = {
    **{name: name for name in ("steps", "compile", "data", "decode", "landscape")},
    "profile": "step_profile",
    "reading": "reading",
}


def define(parser: argparse.ArgumentParser) -> None:
    """Add the command's argument; each subject defines its own flags."""
    parser.add_argument("subject", choices=list(SUBJECTS), help="what to time")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0][0] == "-" and words[0] not in ("-h", "--help")):
        words = ["steps", *words]
    if words[0] not in SUBJECTS:
        return launch.command(__doc__, define)(lambda _: 0)(words[:1])
    module = importlib.import_module(f"experiments.benchmark.{SUBJECTS[words[0]]}")
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return module.main(words[1:])
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise on a signal, so that the context managers end the children."""
    os.write(sys.__stderr__.fileno(), b"stopped by SIGTERM\n")  # print may be busy
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
