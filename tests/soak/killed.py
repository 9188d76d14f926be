"""A run that kills itself: ``python -m tests.soak.killed RUN_DIRECTORY MOMENT``.

A moment is WHAT:NUMBER[:BYTES], counted in this process. 'step:7' is after seven
reported steps; 'write:3:1000' after 1000 bytes of the third file written; 'sync:5'
before the fifth sync to disk; 'replace:2' and 'replaced:2' before and after the second
file replaces its target; 'unlink:1' before the first old checkpoint is deleted. The
process dies by SIGKILL, so nothing is cleaned up.
"""

import builtins
import os
import signal
import sys

import jax

from cnn_jax.training import checkpoint, files, run_directory
from cnn_jax.training.loop import fit
from cnn_jax.training.program import Program
from cnn_jax.training.run_directory import RunDirectory
from tests import tiny


class Moment:
    """The moment to die."""

    def __init__(self, text):
        what, number, *rest = text.split(":")
        self.what, self.left = what, int(number)
        self.bytes = int(rest[0]) if rest else 0

    def comes(self, what):
        """Count the events of its kind; whether this is the moment."""
        if what != self.what:
            return False
        self.left -= 1
        return self.left == 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A file whose writer dies after some bytes."""

    def __init__(self, file, length):
        self.file, self.length = file, length

    def __enter__(self):
        return self

    def __exit__(self, *error):
        """Never reached."""

    def write(self, content):
        self.file.write(content[: self.length % (len(content) + 1)])
        self.file.flush()
        die()


def arm(moment):
    """Set traps where files are written."""
    fsync, replace, unlink = os.fsync, os.replace, checkpoint.pathlib.Path.unlink

    def open_(path, mode="r", *rest, **more):
        file = builtins.open(path, mode, *rest, **more)  # noqa: SIM115
        if mode in ("wb", "ab") and moment.comes("write"):
            return Dying(file, moment.bytes)
        return file

    def trapped_fsync(handle):
        if moment.comes("sync"):
            die()
        fsync(handle)

    def trapped_replace(source, target):
        if moment.comes("replace"):
            die()
        replace(source, target)
        if moment.comes("replaced"):
            die()

    def trapped_unlink(path, *rest, **more):
        if path.suffix == ".ckpt" and moment.comes("unlink"):
            die()
        unlink(path, *rest, **more)

    files.open = run_directory.open = open_
    os.fsync, os.replace = trapped_fsync, trapped_replace
    checkpoint.pathlib.Path.unlink = trapped_unlink


def main():
    jax.config.update("jax_numpy_rank_promotion", "raise")
    directory, moment = sys.argv[1], Moment(sys.argv[2])
    program = Program(tiny.config())

    def report(step, row):
        if moment.comes("step"):
            die()

    arm(moment)
    fit(program, 0, RunDirectory(directory), report)


if __name__ == "__main__":
    main()
