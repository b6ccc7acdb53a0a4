"""`python -m fusion NAME ...`: the experiments that connect, fuse and federate; see `train.experiments`."""

import sys

from train import experiments

NAMES = ("landscape", "rivals", "multi_fusion", "federated", "federated_baselines", "federated_bytes", "federated_heavy",
         "federated_privacy", "federated_default", "soup", "cold", "cold_minilm", "soup_dinov2", "merging_methods", "orthogonal")  # fmt: skip
GROUPS = {"all": ("landscape", "rivals"), "everything": NAMES}

if __name__ == "__main__":
    sys.exit(experiments.main("fusion", NAMES, GROUPS))
