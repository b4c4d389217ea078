#!/bin/sh
# Trains one run on all GPUs of this host: SHARDS=shards RUN=runs/large GPUS=8 sh examples/one-host.sh
# The same command again goes on after a stop.
set -eu

torchrun --standalone --nproc-per-node "${GPUS:-8}" --max-restarts 3 \
    -m tinyllm train --data "${SHARDS:?}" --out "${RUN:?}" --recipe stories110m --resume auto
