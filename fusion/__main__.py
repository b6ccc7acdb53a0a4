"""`python -m fusion NAME ...`: the experiments that connect, fuse and federate; see `train.experiments`."""

import sys

from train import experiments

NAMES = ("landscape", "rivals", "multi_fusion", "federated", "federated_baselines", "soup", "cold", "merging_methods")
GROUPS = {"all": ("landscape", "rivals"), "everything": NAMES}

if __name__ == "__main__":
    sys.exit(experiments.main("fusion", NAMES, GROUPS))
