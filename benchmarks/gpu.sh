#!/usr/bin/env bash
# All that is to be known of a GPU, in less than ten minutes: does everything work there, how fast is it?
#
#   benchmarks/gpu.sh OUT [SHARDS]         on a machine with one GPU, in the root of a clone
#   DEVICE=cpu benchmarks/gpu.sh OUT       the same commands at their smallest, to try the script
#
# Needs pip install -e ".[bench,dev]". SHARDS: prepared clips to pre-train on for two minutes, such as those
# of `vatt demo`. Each part has a limit of its own and a log in OUT; one that fails does not end the others.
set -u
out=${1:?where logs go}; shards=${2:-}; device=${DEVICE:-cuda}
mkdir -p "$out"

part() { # NAME SECONDS COMMAND …
    local name=$1 limit=$(($2 * patience)) started=$SECONDS code=0 cut=; shift 2
    timeout --kill-after 10 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
    [ $((SECONDS - started)) -lt "$limit" ] || cut="; CUT at its limit of $limit s: what follows is not all"
    echo "$name: exit code $code, $((SECONDS - started)) s$cut"
    tail -n 12 "$out/$name.log"
}

if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    how=(--repeats 5) preset=mbs clips=16 batches=(2048 8192 32768) trained=demo seconds=120
    threads=() patience=1
else
    how=(--quick --repeats 1) preset=tiny clips=4 batches=(256) trained=tiny seconds=40
    threads=(--train.threads 1) patience=4 # it may be busy
fi
bench=(--preset $preset --clips $clips --train.device "$device" "${threads[@]}")
python -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)'; date -u +%F

part tests 100 python -m pytest -q -m gpu tests/gpu
part training 140 python benchmarks/training.py "${how[@]}" --device "$device"
part bench 60 python -m vatt bench "${bench[@]}" --json
part compiled 100 python -m vatt bench "${bench[@]}" --train.compile --json
part losses 50 python benchmarks/loss_memory.py --device "$device" --batches "${batches[@]}"
if [ -n "$shards" ]; then # SIGTERM after two minutes: it saves, and says how fast it was
    part pretrain $((seconds + 20)) timeout --preserve-status -s TERM "$seconds" python -m vatt pretrain --preset $trained \
        --data.shards "$shards" --train.device "$device" "${threads[@]}" --train.steps 100000 --out "$out/run"
fi
