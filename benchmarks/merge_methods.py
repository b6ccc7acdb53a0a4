"""Methods of `tna merge` beside mergekit's on the same synthetic checkpoints of 1 GB each: values, seconds, peak memory.

Goals: four times as fast as mergekit, under 1 GB of memory for three models of 1 GB each (and their base, where a method has
one). The two take turns; the files are in the page cache. `tna merge` ends with fsync, mergekit does not. MERGEKIT=path of its
mergekit-pytorch. 9 GB in the temporary folder (TNA_BENCH_DIR), about half an hour on an idle machine; TNA_BENCH_ROUNDS (3) and
TNA_BENCH_LAYERS (15, of 67 MB) make it shorter.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.merge import BLOCK, MODELS, SIDE, measured
from benchmarks.timing import paired, ratio, report
from tna_jax.io import tensor_headers
from tna_jax.io.tensor_headers import open_checkpoint
from tna_jax.merging.tensors import equal_in_all

LAYERS = int(os.environ.get("TNA_BENCH_LAYERS", 15))  # 15 matrices of 4096 x 4096 float32: 1.007 GB
ROUNDS = int(os.environ.get("TNA_BENCH_ROUNDS", 3))
ANCHORED = 0.4
"""Share of entries equal in all models and the base, as a run with that mask ratio has."""
CHANGE, COMMON = 0.1, 0.5
"""Standard deviation of what fine-tuning changes (weights have 1), and the cosine between the changes of two models."""
CLOSE = 1e-6


class Case(NamedTuple):
    """One method in both tools."""

    options: tuple[str, ...]
    """Of `tna merge`."""
    method: str
    """mergekit's name."""
    each: dict[str, float]
    """mergekit's parameters of each model."""
    parameters: dict[str, Any]
    """mergekit's parameters of the merge."""
    base: bool = True
    models: int = MODELS
    differs: str = ""
    """Why the values are not those of mergekit, where the definitions differ."""


SCALED = "mergekit scales what stays so that the sum of magnitudes of the tensor is kept, the paper (and `tna merge`) divides by the density"
TIED = "of entries as large as the smallest that is kept mergekit keeps some, `tna merge` (and the paper's code) all"
CASES = {
    "average": Case((), "linear", {"weight": 1.0}, {}, base=False),
    "slerp": Case(("--method", "slerp"), "slerp", {}, {"t": 0.5}, base=False, models=2),
    "task_arithmetic": Case(("--method", "task_arithmetic", "--method-options", "strength=0.4"), "task_arithmetic",
                            {"weight": 0.4}, {}),
    "ties": Case(("--method", "ties", "--method-options", "density=0.2"), "ties", {"weight": 1.0, "density": 0.2},
                 {"normalize": True}, differs=TIED),
    "dare_linear": Case(("--method", "dare_linear", "--method-options", "density=0.5", "strength=0.4"), "dare_linear",
                        {"weight": 0.4, "density": 0.5}, {}, differs=f"other random numbers; {SCALED}"),
    "dare_ties": Case(("--method", "dare_ties", "--method-options", "density=0.5"), "dare_ties",
                      {"weight": 1.0, "density": 0.5}, {"normalize": True}, differs=f"other random numbers; {SCALED}"),
    "model_stock": Case(("--method", "model_stock"), "model_stock", {}, {}),
}  # fmt: skip


def write(folder: Path) -> None:
    """Writes the base and the models, one tensor at a time; the same share of entries is equal in all."""
    shape = (SIDE, SIDE)
    names = ["base", *map(str, range(MODELS))]
    files = [folder / f"{name}.safetensors" for name in names]
    opened = [open(file, "wb") for file in files]  # noqa: SIM115
    for file, stream in zip(files, opened, strict=True):
        tensors = {f"layer{i}.weight": tensor_headers.Tensor(file, "F32", shape, 0) for i in range(LAYERS)}
        stream.write(tensor_headers.header(tensors, {"format": "pt"}))
    draw = np.random.default_rng(0)
    for _ in range(LAYERS):
        base = draw.standard_normal(shape, np.float32)
        opened[0].write(base)
        common = draw.standard_normal(shape, np.float32) * np.float32(COMMON**0.5)
        trainable = draw.random(shape, np.float32) >= ANCHORED
        for stream in opened[1:]:
            change = common + draw.standard_normal(shape, np.float32) * np.float32((1 - COMMON) ** 0.5)
            stream.write(base + np.where(trainable, np.float32(CHANGE) * change, np.float32(0)))
    for stream in opened:
        stream.close()


def mergekit(program: str, case: Case, files: list[Path], base: Path, folder: Path) -> list[str]:
    """Returns the command of mergekit's merge of the same files."""
    models = [{"model": str(file), **({"parameters": case.each} if case.each else {})} for file in files]
    config = {"merge_method": case.method, "models": models, "parameters": case.parameters, "dtype": "float32"}
    if case.base or case.method == "slerp":
        config["base_model"] = str(base if case.base else files[0])
    file = folder / "mergekit.yml"
    file.write_text(json.dumps(config))
    return [program, str(file), str(folder / "mergekit")]


def tensor(file: Path, name: str) -> np.ndarray:
    """Maps a tensor of a file, flattened."""
    held = open_checkpoint(str(file)).tensors[name]
    return np.memmap(held.file, np.float32, "r", held.start, held.size)


def compare(one: Path, other: Path, base: Path, files: list[Path]) -> dict[str, float]:
    """Compares the files that both tools wrote with each other, and with the base.

    Returns:
      largest_difference: of the entries that differ between the models. What is equal in all `tna merge` copies by every method;
        by the formula of SLERP it would change too: `largest_difference_of_shared`.
      share_that_differs: of all entries, by more than `CLOSE`.
      ratio_of_mean_changes: of the mean magnitudes of what was changed.
    """
    largest, apart, size, changes = [0.0, 0.0], 0, 0, np.zeros(2)
    for name in open_checkpoint(str(base)).tensors:
        x, y, start = (tensor(file, name) for file in (one, other, base))
        models = [tensor(file, name) for file in files]
        for i in range(0, len(x), BLOCK):
            part = slice(i, i + BLOCK)
            difference, shared = np.abs(x[part] - y[part]), equal_in_all([model[part] for model in models])
            largest = [max(old, float(np.where(shared == side, difference, 0).max()))
                       for old, side in zip(largest, (False, True), strict=True)]  # fmt: skip
            apart, size = apart + int((difference > CLOSE).sum()), size + len(difference)
            changes += [np.abs(z[part] - start[part]).sum(dtype=np.float64) for z in (x, y)]
    return {"largest_difference": largest[0], "largest_difference_of_shared": largest[1], "share_that_differs": apart / size,
            "ratio_of_mean_changes": float(changes[0] / changes[1])}  # fmt: skip


def formula(method: str, models: list[np.ndarray], base: np.ndarray) -> np.ndarray:
    """Computes a tensor of Model Stock or SLERP in float64, as the papers write it."""
    wide = [model.astype(np.float64) for model in models]
    vectors = [model - base for model in wide] if method == "model_stock" else wide
    norms = [np.linalg.norm(vector) for vector in vectors]
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i)]
    cosine = float(np.mean([vectors[i] @ vectors[j] / (norms[i] * norms[j]) for i, j in pairs]))
    if method == "slerp":
        angle = np.arccos(cosine)
        return np.asarray((wide[0] + wide[1]) * np.sin(angle / 2) / np.sin(angle))
    count = len(models)
    return np.asarray(base + count * cosine / (1 + (count - 1) * cosine) * np.mean(vectors, axis=0))


def to_formula(method: str, files: list[Path], base: Path, outs: dict[str, Path]) -> dict[str, float]:
    """Computes each tool's largest difference to the formula, of the first tensor's entries that differ between the models."""
    name = next(iter(open_checkpoint(str(base)).tensors))
    start = tensor(base, name)
    models = [tensor(file, name) for file in files]
    exact, differ = formula(method, models, start), ~equal_in_all(models)
    return {tool: float(np.abs(tensor(out, name) - exact)[differ].max()) for tool, out in outs.items()}


def command_of(case: Case, files: list[Path], base: Path | None, out: Path) -> list[str]:
    """Returns the command of `tna merge`."""
    return [
        sys.executable, "-m", "tna_jax", "merge", *map(str, files), "--out", str(out), "--overwrite", *case.options,
        *(["--base", str(base)] if case.base else []),
    ]  # fmt: skip


def side_by_side(case: Case, files: list[Path], base: Path, folder: Path, rival: str | None) -> dict[str, Any]:
    """Times one method in both tools, and compares what they wrote."""
    out, peaks = folder / "out.safetensors", {}

    def ours() -> None:
        peaks["tna_merge"] = measured(command_of(case, files, base, out))

    def theirs() -> None:
        assert rival is not None
        peaks["mergekit"] = measured(mergekit(rival, case, files, base, folder))

    seconds = paired({"tna_merge": ours, **({"mergekit": theirs} if rival else {})}, ROUNDS, warmup=0)
    result: dict[str, Any] = {
        "median_seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "peak_bytes": peaks, "load_average": os.getloadavg()[0], "seconds": seconds,
    }  # fmt: skip
    if rival:
        result["times_as_fast"] = ratio(seconds, "mergekit", "tna_merge")
        other = folder / "mergekit" / "model.safetensors"
        result |= compare(out, other, base, files)
        if case.method in ("slerp", "model_stock"):
            result["to_formula"] = to_formula(case.method, files, base, {"tna_merge": out, "mergekit": other})
        result["differs"] = case.differs
    return result


def main() -> None:
    rival = os.environ.get("MERGEKIT")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TNA_BENCH_DIR")) as name:
        folder = Path(name)
        write(folder)
        base = folder / "base.safetensors"
        files = [folder / f"{i}.safetensors" for i in range(MODELS)]
        report("merge_methods", {
            "models": MODELS, "bytes_of_each": files[0].stat().st_size, "rounds": ROUNDS, "cores": os.cpu_count(),
            "methods": {method: side_by_side(case, files[: case.models], base, folder, rival) for method, case in CASES.items()},
        })  # fmt: skip


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s in all", file=sys.stderr)
