#!/bin/bash
# A run of `opo train` on all GPUs of one or more machines:
#
#     sbatch docs/slurm.sh --preset qwen-math-7b --algorithm opo --seed 0
#     sbatch --nodes 2 --export ALL,RUN=runs/mine docs/slurm.sh --preset qwen-math-7b
#
# Before the time limit it stops where it can go on, and queues again. After a preemption or a
# machine's failure Slurm queues it (--requeue), and it goes on from the last checkpoint. A run that
# fails for another reason is not queued again.
#
#SBATCH --job-name=opo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -u
run=${RUN:-runs/$SLURM_JOB_NAME-$SLURM_JOB_ID}  # Where all machines see it, as OPO_CACHE and HF_HOME.
resume=()
if [ -f "$run/config.json" ]; then resume=(--resume); fi

# Of the 600 seconds: the step that is being trained may end in 420, and is saved in the rest.
grace=420
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=570
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0  # Where the machines have several networks.

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))  # Another job may be on the same machine.

is_stopped= task=
trap 'is_stopped=yes; kill -TERM "$task" 2>/dev/null' TERM
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "${RANKS:-gpu}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$first:$port" --rdzv-id "$SLURM_JOB_ID" \
    -m opo_cli train --out "$run" --set checkpoint.grace_seconds=$grace "${resume[@]}" "$@" &
task=$!
while kill -0 "$task" 2>/dev/null; do  # A signal ends `wait`, not what it waits for.
    wait "$task"
done
wait "$task"
code=$?
if [ -n "$is_stopped" ] && [ ! -f "$run/model/config.json" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
