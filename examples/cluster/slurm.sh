#!/bin/bash
# Build an index in 16 shards with SLURM, then commit it:
#
#     MODEL=my-model DATA=train.jsonl OUT=/shared/mine.lance bash slurm.sh
#
# Shards that failed or were preempted: run the same line again. Those that are finished say so at once and change
# nothing; the others go on after their last block.
set -euo pipefail
SHARDS=${SHARDS:-16}

if [[ -z "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    array=$(sbatch --parsable --array="1-$SHARDS" --export=ALL --job-name=headwater \
        --gres="${GRES-gpu:1}" --cpus-per-task="${CPUS:-8}" --requeue "$0")
    sbatch --dependency="afterok:$array" --job-name=headwater-commit --export=ALL \
        --wrap "headwater index commit '$OUT'"
    exit
fi

# After a requeue or a second submission a finished shard is left alone.
if ! output=$(headwater index build "$OUT" --model "$MODEL" --data "$DATA" --method "${METHOD:-rise}" \
    --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" --resume 2>&1); then
    echo "$output"
    grep -q "was computed already" <<<"$output"
    exit
fi
echo "$output"
