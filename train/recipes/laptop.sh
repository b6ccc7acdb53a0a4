#!/usr/bin/env bash
# A laptop, or any one machine: eight networks with shared anchors on digits, the barriers between all pairs, their soups, one page.
# Two cores need about a minute; nothing is downloaded. Start it again after Ctrl-C or a crash: it resumes.
#
#   pip install '.[cli]'                  # from the checkout; '.[cli,cuda12]' with an NVIDIA GPU
#   bash train/recipes/laptop.sh [RUN]    # the run folder; default runs/laptop
set -euo pipefail
run=${1:-runs/laptop}

tna devices
if [ -e "$run/config.json" ]; then
  tna resume "$run"
else
  tna train --members 8 --ratio 0.4 --epochs 20 --train-examples 1200 --out "$run"
fi
tna barrier "$run"
tna fuse "$run"
tna report "$run"
