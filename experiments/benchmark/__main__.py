"""How fast things are, a subject at a time.

  python -m experiments.benchmark [SUBJECT] [--help] [--flags of the subject]

steps      train steps of networks, ours and other frameworks' (the default)
compile    compiling a train step, by depth
profile    where the time of a train step goes, by kind of operation
data       a prepared set into memory, the first time and from the cache
decode     picture files to training images, ours and other libraries'
landscape  a loss landscape as one program, or in a loop over points
reading    training on strings of digits, over their length
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from experiments import launch

SUBJECTS = {
    **{name: name for name in ("steps", "compile", "data", "decode", "landscape")},
    "profile": "step_profile",
    "reading": "reading",
}


def define(parser: argparse.ArgumentParser) -> None:
    """The command's argument: those of a subject are its own."""
    parser.add_argument("subject", choices=list(SUBJECTS), help="what is timed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0][0] == "-" and words[0] not in ("-h", "--help")):
        words = ["steps", *words]
    if words[0] not in SUBJECTS:
        return launch.run(lambda _: 0, define, __doc__, words[:1])
    module = importlib.import_module(f"experiments.benchmark.{SUBJECTS[words[0]]}")
    return module.main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
