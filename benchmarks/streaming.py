"""Training on more data than memory: synthetic records are written, and `tna train` trains on them under a limit.

`python -m benchmarks.streaming GB LIMIT FOLDER`: GB of records (default 20) are written into FOLDER/records, if they are not there; two networks train on
them for an epoch and are measured on all of them, in a process whose memory the kernel limits to LIMIT GB (default 4): RLIMIT_DATA, all that is
allocated, and its peak of resident memory must be below, too. Pages of files that the system keeps in memory while there is room
belong to no process and are not counted. The classes are told apart by a pattern beneath noise, so that a training that sees other
bytes than were written does not learn them.
"""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIDE, PATCH, CLASSES, TEST, POOL = 128, 16, 10, 4096, 2**26
TRAIN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), int(sys.argv[1])))
from tna_jax.programs.cli.main import main
code = main(sys.argv[2:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""
OPTIONS = (
    "--members", "2", "--model", "benchmarks/streaming_network.py:create", "--epochs", "1", "--batch-size", "128",
)  # fmt: skip


def examples(count: int, seed: int):
    """Images of noise (cut out of POOL bytes of it) over the pattern of their class, and the classes; drawn one after the other."""
    patches = np.random.default_rng(0).integers(0, 128, (CLASSES, SIDE // PATCH, SIDE // PATCH, 3), np.uint8)
    patterns = patches.repeat(PATCH, 1).repeat(PATCH, 2)
    rng = np.random.default_rng(seed)
    pool = np.frombuffer(rng.bytes(POOL), np.uint8) >> 1
    for _ in range(count):
        label = rng.integers(CLASSES)
        first = rng.integers(POOL - SIDE * SIDE * 3)
        yield pool[first : first + SIDE * SIDE * 3].reshape(SIDE, SIDE, 3) + patterns[label], np.int32(label)


def write(folder: Path, gigabytes: float) -> float:
    """Writes the records, if they are not there; returns the seconds it took."""
    from tna_jax.io import write_records

    began = time.perf_counter()
    for part, count, seed in (("test", TEST, 2), ("train", round(gigabytes * 1e9 / (SIDE * SIDE * 3)), 1)):
        if not (folder / part / "records.json").is_file():
            write_records(folder / part, itertools.islice(examples(count, seed), count))
    return time.perf_counter() - began


def main(gigabytes: float, limit: float, folder: Path) -> None:
    from benchmarks.timing import report

    seconds = write(folder / "records", gigabytes)
    data = sum(file.stat().st_size for file in (folder / "records").rglob("*.array_record"))
    run = folder / "run"
    command = ["train", "--dataset", f"records:{folder / 'records'}", *OPTIONS, "--out", str(run), "--overwrite"]
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", TRAIN, str(int(limit * 1e9)), *command], stdout=subprocess.PIPE, text=True, check=True
    )
    spent = time.perf_counter() - began
    result = json.loads((run / "train.json").read_text())
    log = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    peak = int(ended.stdout.rsplit("peak ", 1)[1])
    assert peak < limit * 1e9, f"{peak / 1e9:.2f} GB at the peak, {limit} GB allowed"
    accuracy = [model["test_accuracy"] for model in result["models"]]
    report("streaming", {
        "options": list(OPTIONS), "bytes_of_records": data, "examples": round(gigabytes * 1e9 / (SIDE * SIDE * 3)),
        "limit_bytes": int(limit * 1e9), "limit": "RLIMIT_DATA", "peak_resident_bytes": peak,
        "seconds": {"writing": seconds, "all_of_tna_train": spent},
        "images_per_second": log["images_per_second"], "bytes_per_second": log["images_per_second"] * SIDE * SIDE * 3,
        "test_accuracy": accuracy,
    })  # fmt: skip


if __name__ == "__main__":
    words = sys.argv[1:]
    if len(words) != 3:
        sys.exit("python -m benchmarks.streaming GB LIMIT FOLDER, for example: 20 4 /tmp/streaming")
    main(float(words[0]), float(words[1]), Path(words[2]))
