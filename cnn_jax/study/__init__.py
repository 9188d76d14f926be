"""Many runs: the degradation study.

A study is a directory of runs; all its other files (``results.csv``, figures) are
rebuilt from the runs. `plan` lists the runs, `execution` trains them in `processes` on
this machine and `jobs` in cluster jobs, `likeness` compares them with earlier ones,
`directory` manages their files and `failures` those of failed runs, `results` reads
their results, and `progress` reports how far they are. `pool` computes other tasks
in several processes.
"""

from cnn_jax.study.directory import StudyDirectory as StudyDirectory
from cnn_jax.study.plan import Run as Run
from cnn_jax.study.plan import expand as expand
from cnn_jax.study.plan import merge as merge
from cnn_jax.study.results import COLUMNS as COLUMNS
from cnn_jax.study.results import groups as groups
from cnn_jax.study.results import held_out as held_out
from cnn_jax.study.results import held_out_of as held_out_of
from cnn_jax.study.results import load as load
from cnn_jax.study.results import logs as logs
from cnn_jax.study.results import over_seeds as over_seeds
from cnn_jax.study.results import unfinished as unfinished
from cnn_jax.study.results import write_results as write_results
from cnn_jax.study.results import write_table as write_table
