"""The command; see `experiments.gtn.experiment`."""

import sys

from experiments.gtn.experiment import main

if __name__ == "__main__":
    sys.exit(main())
