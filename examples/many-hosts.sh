#!/bin/sh
# Trains one run on several hosts. The same command on each of them, FIRST being the name of one:
# FIRST=host-1 HOSTS=2 SHARDS=/shared/shards RUN=/shared/runs/large sh examples/many-hosts.sh
# SHARDS and RUN are the same folders on all hosts. GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network.
set -eu

torchrun --nnodes "${HOSTS:?}" --nproc-per-node "${GPUS:-8}" --max-restarts 3 \
    --rdzv-backend c10d --rdzv-id "${NAME:-tinyllm}" --rdzv-endpoint "${FIRST:?}:29500" \
    -m tinyllm train --data "${SHARDS:?}" --out "${RUN:?}" --recipe stories110m --resume auto
