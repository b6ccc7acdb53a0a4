#!/usr/bin/env bash
# A Cloud TPU pod slice: the same command on every host of the slice at once; the hosts find each other.
#
#   bash train/recipes/tpu_pod.sh SLICE ZONE install    # once: the wheel that `make release` builds, on every host
#   bash train/recipes/tpu_pod.sh SLICE ZONE train
#   bash train/recipes/tpu_pod.sh SLICE ZONE resume     # after a preemption, or when a host was lost
#   bash train/recipes/tpu_pod.sh SLICE ZONE barrier
#
# RUN is a folder that all hosts reach (NFS, or a bucket mounted with gcsfuse), DATA one that holds cifar10/ (docs/how-to.md).
set -euo pipefail
slice=${1:?the name of the slice} zone=${2:?its zone} step=${3:?install, train, resume or barrier}
run=${RUN:-/mnt/shared/runs/resnet20} data=${DATA:-/mnt/shared/data}

everywhere() {
  gcloud compute tpus tpu-vm ssh "$slice" --zone "$zone" --worker all --command "$1"
}

case $step in
  install)
    gcloud compute tpus tpu-vm scp dist/tna_jax-*.whl "$slice": --zone "$zone" --worker all
    everywhere 'pip install "$(ls tna_jax-*.whl)[cli,tpu]"'
    ;;
  train)
    everywhere "TNA_DATA_DIR=$data tna train --members 64 --ratio 0.4 --model resnet20 --norm layer --dataset cifar10 --out $run --distributed"
    ;;
  resume)
    everywhere "TNA_DATA_DIR=$data tna resume $run --distributed"
    ;;
  barrier)
    everywhere "TNA_DATA_DIR=$data tna barrier $run --distributed"
    ;;
  *)
    echo "no step $step: install, train, resume or barrier" >&2
    exit 2
    ;;
esac
