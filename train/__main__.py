"""`python -m train NAME ...`: the experiments that train; see `train.experiments`."""

import sys

from train import experiments

NAMES = ("figure2", "figure3", "figure4", "figure5", "theorem", "anchors", "depth", "pretraining", "language_model",
         "regression", "record", "papa", "curves")  # fmt: skip
GROUPS = {"all": ("figure2", "figure3", "figure4", "theorem"), "everything": NAMES}

if __name__ == "__main__":
    sys.exit(experiments.main("train", NAMES, GROUPS))
