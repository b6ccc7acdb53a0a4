"""The program: `python -m benchmarks.gpu`."""

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import benchmarks.gpu
from benchmarks.gpu import sections as run
from benchmarks.gpu.bench import PRECISIONS, SMOKE, Bench, Sizes
from benchmarks.timing import RESULTS
from tna_jax import backend

SECTIONS = {
    "mlp": run.mlp,
    "path": run.path,
    "convolutions": run.convolutions,
    "ways": run.ways,
    "instructions": run.instruction_counts,
}


def main() -> int:
    """The program; returns its exit code, 1 for failures under `--smoke`."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=(benchmarks.gpu.__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--sections", default=",".join(SECTIONS), help="of " + ",".join(SECTIONS))
    parser.add_argument("--precisions", help=f"of {','.join(PRECISIONS)}; default: all, --smoke: bf16")
    parser.add_argument("--networks", help="with convolutions, of resnet20,cnn; default: both, --smoke: cnn")
    parser.add_argument("--models", help="numbers of models to take, of 256,64,8,1 (mlp) and 32,8,1 (convolutions)")
    parser.add_argument("--budget-seconds", type=float, default=float("inf"), help="start nothing new after these")
    parser.add_argument(
        "--output", type=Path, help="default: gpu.json in benchmarks/results; --smoke: a temporary file"
    )
    parser.add_argument("--hlo", type=Path, help="folder for the compiled programs with convolutions")
    parser.add_argument(
        "--flags",
        default="",
        help="added to XLA_FLAGS, and recorded: command buffers over loops, say (a run for each choice)",
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on any backend: does it work?")
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else Sizes()
    sections = options.sections.split(",")
    precisions = (options.precisions or ("bf16" if options.smoke else ",".join(PRECISIONS))).split(",")
    networks = options.networks.split(",") if options.networks else sizes.networks
    for given, known in ((sections, SECTIONS), (precisions, PRECISIONS), (networks, Sizes.networks)):
        if set(given) - set(known):
            parser.error(f"unknown: {', '.join(set(given) - set(known))}; known: {', '.join(known)}")
    sizes = dataclasses.replace(sizes, networks=tuple(networks))
    if options.models:
        chosen = {int(number) for number in options.models.split(",")}
        kept = {part: tuple(m for m in getattr(sizes, part) if m in chosen) for part in ("mlp", "convolutions")}
        sizes = dataclasses.replace(sizes, **kept)
    if options.flags:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {options.flags}".strip()
    backend.configure(cpu_devices=1)
    usual = Path(tempfile.gettempdir()) / "gpu_smoke.json" if options.smoke else RESULTS / "gpu.json"
    output = options.output or usual
    output.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(sizes, precisions, options.budget_seconds, output, options.hlo)
    bench.console.print(f"{backend.describe()}; PyTorch: {bench.head['torch']}", markup=False)
    for name in (name for name in SECTIONS if name in sections):
        cases = bench.found[name] = {}
        bench.attempt(cases, name, lambda name=name, cases=cases: SECTIONS[name](bench, cases))
        bench.write()
    bench.console.print(f"{output}: {bench.failures} failed")
    return 1 if options.smoke and bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
