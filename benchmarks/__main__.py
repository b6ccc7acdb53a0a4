"""`make bench`: every benchmark in a process of its own, a JSON each in benchmarks/results/."""

import subprocess
import sys

NAMES = ("anchored_step", "compact", "mask_drawing", "fsdp", "ensemble", "convolutions", "path", "imports", "start", "matching", "merge", "merge_methods", "merge_parts",
         "saving", "finetune", "federated")  # fmt: skip

for name in sys.argv[1:] or NAMES:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
