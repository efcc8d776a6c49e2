#!/bin/bash
# Pre-train on several machines of a SLURM cluster: sbatch examples/slurm/pretrain.sh
#
# One task a machine; torchrun starts a process for each of its GPUs. The shards, the run folder and
# the virtual environment lie on a disk that all machines share. docs/pretrain.md has the rest.
#SBATCH --job-name=vatt
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
# Five minutes before the time is over this script gets SIGTERM and tells all processes: they finish
# their step, save it, and end. The job goes back to the queue, where the same command continues.
set -euo pipefail

out=${OUT:-runs/mbs}
settings=("$@")
[ $# -gt 0 ] || settings=(--preset mbs --train.parallel fsdp --train.micro_batch 8 --train.compile)
nodes=${FIRST_NODE:-$(scontrol show hostnames "$SLURM_JOB_NODELIST")}
first=${nodes%%$'\n'*} # through `head` scontrol may end by SIGPIPE, and so would this script, without a word
# From SLURM 22.05 on srun does not take over --cpus-per-task: all processes would share one core.
on_each_node=${ON_EACH_NODE-srun --kill-on-bad-exit=1 --cpus-per-task=$SLURM_CPUS_PER_TASK}

# How long torchrun waits for a step and its checkpoint before it kills; before PyTorch 2.12 always 30 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=280
stopped=no
trap 'stopped=yes; scancel --signal=TERM "$SLURM_JOB_ID"' TERM
$on_each_node torchrun \
    --nnodes "${SLURM_JOB_NUM_NODES:-1}" --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
    --max-restarts 3 --rdzv-backend c10d --rdzv-id "${SLURM_JOB_ID:-0}" \
    --rdzv-endpoint "$first:${PORT:-29500}" \
    -m vatt pretrain --data.shards "${SHARDS:-shards/}" --out "$out" "${settings[@]}" &
code=0
wait $! || code=$?
if [ "$stopped" = yes ]; then
    wait || true # for the processes to end
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
