"""The job for SLURM in examples/, with stand-ins for SLURM's commands and for torchrun."""

import os
import signal
import subprocess
import time
from pathlib import Path

JOB = Path(__file__).parents[2] / "examples" / "slurm" / "pretrain.sh"
STAND_INS = {
    "scontrol": """if [ "$1 $2" = "show hostnames" ]; then
for n in {1..2000}; do echo "node$n"; done
else echo "$@" >> scontrol.txt; fi""",
    "srun": """while [[ $1 == --* ]]; do shift; done
"$@" & echo $! > task.txt; wait $!""",
    "scancel": """echo "$@" > scancel.txt; kill -TERM "$(cat task.txt)" """,
    "torchrun": """trap 'sleep 0.2; echo saved > saved.txt; exit 1' TERM
echo "$@" > torchrun.txt; for n in {1..200}; do sleep 0.05; done""",
}


def test_a_job_whose_time_is_over_saves_and_goes_back_to_the_queue(tmp_path):
    for name, lines in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SHARDS": "sh", "OUT": "run"}
    env |= {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": "2000",
        "SLURM_JOB_NODELIST": "node[1-2000]",
    }
    env |= {"SLURM_CPUS_PER_TASK": "4", "SLURM_GPUS_ON_NODE": "8"}
    job = subprocess.Popen(["bash", JOB, "--preset", "mbs"], cwd=tmp_path, env=env)
    deadline = time.monotonic() + 10
    while not (tmp_path / "torchrun.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    job.send_signal(signal.SIGTERM)  # of the batch shell alone, as --signal=B: does
    job.wait(timeout=10)
    started = (tmp_path / "torchrun.txt").read_text()
    assert "--nnodes 2000 --nproc-per-node 8" in started
    assert "--rdzv-endpoint node1:29500 -m vatt pretrain" in started
    assert started.endswith("--data.shards sh --out run --preset mbs\n")
    assert (tmp_path / "scancel.txt").read_text() == "--signal=TERM 7\n"
    assert (tmp_path / "saved.txt").exists()  # the job waited for it
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"
