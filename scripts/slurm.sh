#!/bin/bash
# A training on several nodes under SLURM; further words are those of smt-hf:
#   sbatch --nodes 2 scripts/slurm.sh smt --config configs/tinystories/smt.yaml --per_device_train_batch_size 8 --output_dir /shared/runs/smt
# Five minutes before the time is up, or when the job is preempted, the training saves a checkpoint; the job is queued again and goes on
# from there. output_dir lies on a file system that all nodes share.
#SBATCH --job-name=smt-hf
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
folder=$(printf '%s\n' "$@" | sed -n '/^--output_dir$/{n;p;q}')
if compgen -G "$folder/checkpoint-*" > /dev/null; then
  set -- "$@" --resume true
fi
code=0
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node 8 --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d \
  --rdzv_endpoint "$head:29500" -m smt_hf "$@" || code=$?
if [ "$code" -ne 0 ] && compgen -G "$folder/checkpoint-*" > /dev/null && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
