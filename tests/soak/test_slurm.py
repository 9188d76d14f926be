"""A study, and one run on two hosts, through a real slurmctld on this machine.

Needs root and Debian's packages: ``apt-get install slurm-wlm munge``.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from cnn_jax.study import jobs
from cnn_jax.training.run_directory import RunDirectory
from tests.needs import needs
from tests.study.test_jobs import (
    Killer,
    assert_each_ran_once,
    in_the_project,
    small_study,
)

__all__ = ["in_the_project"]  # the fixture, also for these tests
ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
ClusterName=single
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# Two tasks of two devices each, as in the README's script.
SCRIPT = """#!/bin/bash
#SBATCH --ntasks=2
#SBATCH --output={folder}/%j.txt
export XLA_FLAGS=--xla_force_host_platform_device_count=2
cd {root}
srun --kill-on-bad-exit=1 {python} -m experiments.train \\
    --config=configs/resnet_digits.py --workdir={workdir} \\
    --config.model.depth=8 --config.model.widths='(2,2,2)' --config.steps=60 \\
    --config.eval_every=0 --config.checkpoint_every=0 --config.log_every=5 \\
    --config.parallel.hosts=cluster --config.parallel.host_timeout=60
"""

pytestmark = [
    pytest.mark.soak,
    needs("slurm"),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A cluster that consists of this machine."""
    folder = tmp_path_factory.mktemp("slurm")
    with socket.socket() as one, socket.socket() as two:
        for free in (one, two):
            free.bind(("127.0.0.1", 0))
        ports = [free.getsockname()[1] for free in (one, two)]
    config = folder / "slurm.conf"
    text = CONFIG.format(
        host=socket.gethostname().split(".")[0],
        ports=ports,
        folder=folder,
        cores=os.cpu_count(),
    )
    config.write_text(text)
    key = folder / "munge.key"
    subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
    munge = [
        *("munged", "--foreground", "--force", f"--key-file={key}"),
        *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid"),
        *(f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"),
    ]
    daemons = [[name, "-D", "-f", config] for name in ("slurmctld", "slurmd")]
    running = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(config))
        try:
            for command in (munge, *daemons):
                with open(folder / f"{command[0]}.out", "w") as out:
                    daemon = subprocess.Popen(command, stdout=out, stderr=out)
                running.append(daemon)
                time.sleep(2)
            wait_until(lambda: "idle" in said("sinfo", "--noheader"), 60)
            yield folder
        finally:
            for daemon in reversed(running):
                daemon.terminate()
                daemon.wait()


def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
def test_a_study_whose_worker_is_lost(slurm, tmp_path, number):
    """A job that is killed, or reaches its time limit in SLURM, is queued again."""
    runs = small_study()
    killer = Killer(tmp_path, number)
    asked = {"timeout_min": 60, "name": "tiny"}
    assert jobs.execute(runs, tmp_path, killer, 2, "slurm", asked) == []
    assert killer.killed
    assert_each_ran_once(runs, tmp_path, killer.events)
    submitted = list((tmp_path / "jobs").glob("*_submission.sh"))
    assert len(submitted) >= 2


def test_a_run_on_two_tasks_is_cancelled_and_goes_on(slurm, tmp_path):
    logs = []
    for name in ("whole", "cancelled"):
        place = RunDirectory(tmp_path / name)
        script = tmp_path / f"{name}.sh"
        script.write_text(
            SCRIPT.format(
                folder=tmp_path, root=ROOT, python=sys.executable, workdir=place.path
            )
        )
        submit = ["sbatch", "--parsable", str(script)]
        if name == "cancelled":
            job = said(*submit).strip()
            wait_until(lambda place=place: len(place.rows()) >= 3, 300)
            assert place.result() is None
            said("scancel", f"--signal={signal.SIGTERM.name[3:]}", job)
            wait_until(lambda job=job: job not in said("squeue", "-h", "-o", "%A"), 60)
            assert place.result() is None
            assert len(list(place.checkpoints.iterdir())) == 1
        subprocess.run([submit[0], "--wait", submit[2]], check=True)
        assert place.result()["device"] == "4 x cpu"
        logs.append(place.log())
    assert logs[0] == logs[1]
