"""`tna merge` on three synthetic checkpoints of 1 GB each: peak memory, and time against reading and copying the same bytes.

Goals: peak memory under 1 GB; throughput at least 70 % of copying's. The files are in the page cache, as after a download; all
writers but mergekit end with fsync. Seconds of the processor (all cores, user and system) stand beside those of the clock: they hold where
other programs run too. `python -m benchmarks.merge [LAYERS]`, 15 matrices by default. MERGEKIT=path of its mergekit-pytorch adds mergekit's linear merge of the same files. About two
minutes; 9 GB in the temporary folder (TNA_BENCH_DIR).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.timing import paired, quartiles, ratio, report
from tna_jax.io import tensor_headers
from tna_jax.io.tensor_headers import open_checkpoint

MODELS = 3
LAYERS, SIDE = 15, 4096  # 15 matrices of 4096 x 4096 float32: 1.007 GB
BLOCK = 1 << 22
ANCHORED = 0.4
"""Share of entries equal in all models, as a run with that mask ratio has."""


def write(file: Path, seed: int, layers: int = LAYERS, side: int = SIDE) -> None:
    """A checkpoint of random numbers; the same entries of all are equal."""
    shape = (side, side)
    tensors = {f"layer{i}.weight": tensor_headers.Tensor(file, "F32", shape, 0) for i in range(layers)}
    own, shared = np.random.default_rng(seed), np.random.default_rng(99)
    with open(file, "wb") as opened:
        opened.write(tensor_headers.header(tensors, {"format": "pt"}))
        for _ in range(layers):
            values = own.standard_normal(shape, np.float32)
            anchored = shared.random(shape, np.float32) < ANCHORED
            opened.write(np.where(anchored, shared.standard_normal(shape, np.float32), values))


def copy(files: list[Path], out: Path) -> None:
    """Copies the files through a buffer, to disk."""
    for i, file in enumerate(files):
        _move([file], Path(f"{out}{i}"))


def read_all_write_one(files: list[Path], out: Path) -> None:
    """Moves the bytes that a merge moves: reads all files, writes one."""
    _move(files, out)


def _move(files: list[Path], out: Path) -> None:
    buffer = memoryview(bytearray(BLOCK))
    opened = [open(file, "rb", buffering=0) for file in files]  # noqa: SIM115
    with open(out, "wb", buffering=0) as written:
        while got := max(file.readinto(buffer) for file in opened[::-1]):
            written.write(buffer[:got])
        os.fsync(written.fileno())
    for file in opened:
        file.close()


LAUNCHER = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=2)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)"""
"""A small process that starts the program: what its parent had in memory counts as a child's own."""


def measured(command: list[str]) -> tuple[int, float]:
    """Runs a command and returns the most memory it had, in bytes, and the seconds of the processor."""
    ran = subprocess.run([sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ran.stderr}")
    kilobytes, seconds = ran.stdout.split()
    return int(kilobytes) * 1024, float(seconds)


def mergekit(program: str, files: list[Path], folder: Path) -> list[str]:
    """The command of mergekit's linear merge of the same files."""
    config = folder / "mergekit.yml"
    models = [{"model": str(file), "parameters": {"weight": 1.0}} for file in files]
    config.write_text(json.dumps({"merge_method": "linear", "models": models, "dtype": "float32"}))
    return [program, str(config), str(folder / "mergekit")]


def largest_difference(one: Path, other: Path) -> float:
    """Between the entries of two files of the same tensors."""
    files = [open_checkpoint(str(file)).tensors for file in (one, other)]
    parts = [
        [np.memmap(held[name].file, np.float32, "r", held[name].start, held[name].size) for held in files]
        for name in files[0]
    ]
    return max(float(np.abs(x - y).max()) for x, y in parts)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TNA_BENCH_DIR")) as name:
        folder = Path(name)
        layers = int(sys.argv[1]) if len(sys.argv) > 1 else LAYERS
        files, small = ([folder / f"{word}{i}.safetensors" for i in range(MODELS)] for word in ("", "small"))
        for i in range(MODELS):
            write(files[i], i, layers)
            write(small[i], i, 1, 16)
        out, inside, peaks = folder / "out.safetensors", [], {}
        processor: dict[str, list[float]] = {}

        def counted(name: str, seconds: float) -> None:
            processor.setdefault(name, []).append(seconds)

        def in_turn(name: str, move) -> None:
            begun = time.process_time()
            move(files, folder / name)
            counted(name, time.process_time() - begun)

        def command(inputs: list[Path], result: Path) -> list[str]:
            return [sys.executable, "-m", "tna_jax", "merge", *map(str, inputs), "--out", str(result), "--overwrite"]

        def merge() -> None:
            peaks["tna_merge"], seconds = measured(command(files, out))
            counted("tna_merge", seconds)
            inside.append(json.loads(out.with_suffix(".merge.json").read_text())["seconds"])

        alternatives = {
            "tna_merge": merge,
            "start": lambda: counted("start", measured(command(small, folder / "small.safetensors"))[1]),
            "copy_all": lambda: in_turn("copy_all", copy),
            "read_all_write_one": lambda: in_turn("read_all_write_one", read_all_write_one),
        }
        rival = os.environ.get("MERGEKIT")
        if rival:

            def other() -> None:
                peaks["mergekit"], _ = measured(mergekit(rival, files, folder))

            alternatives["mergekit"] = other
        seconds = paired(alternatives, rounds=5)
        seconds["tna_merge_without_start"] = inside[1:]
        middle = {name: float(np.median(values)) for name, values in seconds.items()}
        report("merge", {
            "models": MODELS, "bytes_of_each": files[0].stat().st_size, "peak_bytes": peaks, "median_seconds": middle,
            "throughput_of_copying_all": ratio(seconds, "copy_all", "tna_merge_without_start"),
            "throughput_of_reading_all_and_writing_one": ratio(seconds, "read_all_write_one", "tna_merge_without_start"),
            "quartiles": {
                "of_copying_all": quartiles(seconds, "copy_all", "tna_merge_without_start"),
                "of_reading_all_and_writing_one": quartiles(seconds, "read_all_write_one", "tna_merge_without_start"),
            },
            "processor_seconds": processor,
            **({"largest_difference_to_mergekit": largest_difference(out, folder / "mergekit" / "model.safetensors")}
               if rival else {}),
            "seconds": seconds,
        })  # fmt: skip


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all", file=sys.stderr)
