"""The record: networks from different initial values, averaged without matching, beside W-asymmetric networks in their own recipes.

Shows: loss and accuracy halfway between two networks that trained apart, with W-Asym's anchors (Lim et al. 2024, arXiv 2405.20231: an
  exact number of anchored inputs for each unit, from N(0, kappa^2)) as published, with trainable weights that start small beside them
  (ours), with our heavy anchors, and controls: no anchors with the small start, and one initial value for both networks. Of each pair:
  barriers (midpoint, worst on the path; loss, accuracy), ends, distance and cosine of the two networks at the start and the end, of
  all weights and of what was trained, what was trained over what is anchored (beta) by layer, weight matching afterwards, and one
  temperature fitted on held-out training images.
Hardware: two CPU cores, in slices of any length: `--minutes N` stops after N minutes, and the same command resumes there, to the
  same bytes. What the committed results hold is not trained again. Cases, in this order: mlp_small (6,000 MNIST images, 8 epochs),
  resnet20_small (10,000 CIFAR-10 images at 16x16, 20 epochs), mlp (all of MNIST, 25 epochs: half an hour for 8 networks on two idle
  cores), vit_small (6,000), cnn_small, vgg11_small (as resnet20_small, the CNN at 32x32). `--full`, for a GPU, with `--placement map`: resnet20,
  vit, vgg11, cnn (45,000 images, 100 epochs) and resnet20x8 (50 epochs).
Command: `python -m train record --minutes 60`
Expected: W-Asym's barrier is below 0 on the MLP; a small start lowers it, and lowers it most on the ResNet, at the same ends. Mean
  and sample standard deviation over pairs; a paired test where there are 5.
Data: MNIST, CIFAR-10.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import write_json
from tna_jax.programs.cli.progress import console
from train.record import blocks as blocks_lib
from train.record import members
from train.record.drawing import figure, table
from train.record.settings import CASES, Case, agree

__all__ = ["figure", "run", "table"]

RUNS = Path("runs") / "experiments" / "record"
RESULTS = Path(__file__).resolve().parents[1] / "results"
ON_CPU = ("mlp_small", "resnet20_small", "mlp", "vit_small", "cnn_small", "vgg11_small")
"""In the order in which they are trained; what `--full` trains is marked in `CASES`."""


def run(
    full: bool = False,
    minutes: float = math.inf,
    case: str | None = None,
    pairs: int = 5,
    placement: str = "auto",
    folder: Path = RUNS,
    results: Path = RESULTS,
) -> dict[str, Any]:
    """Trains what is not trained yet, for so many minutes, and returns everything that was measured so far.

    Args:
      full: the case for a GPU.
      case: one of `CASES`; None: those for a CPU.
      pairs: of the rows that claims are about; the others get one.
      placement: how models share a device.
      folder: of the states.
      results: where `record.json` and `record_full.json` lie; blocks that they hold count as trained.
    """
    if case is not None and case not in CASES:
        raise unknown("--case", case, CASES)
    if case is not None and CASES[case].full != full:
        raise UsageError(
            f"--case {case}: {'it is trained on a GPU: add' if CASES[case].full else 'it is no case of'} --full"
        )
    deadline = time.monotonic() + 60 * minutes
    names = (case,) if case else tuple(name for name in CASES if CASES[name].full) if full else ON_CPU
    written = results / f"record{'_full' if full else ''}.json"
    if written.exists():
        restore(json.loads(written.read_text()), folder)
    for name in names:
        chosen = CASES[name]
        network = members.load(chosen, placement)
        for until in chosen.stages:
            for block in blocks_lib.blocks(name, chosen, pairs, 1):
                if not blocks_lib.advance(block, chosen, network, folder / name / block.name, until, deadline):
                    console.print(f"{name}: stopped in {block.name}; the same command resumes there")
                    return collected(folder, full)
    return collected(folder, full)


def collected(folder: Path, full: bool) -> dict[str, Any]:
    """What was measured of all cases and blocks under a folder, with the settings in words."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        parts = {path.parent.name: path for path in sorted((folder / name).glob(f"*/{blocks_lib.MEASURED}"))}
        if parts and case.full == full:
            found[name] = described(case) | {
                "blocks": {block: blocks_lib.measured(path.parent) for block, path in parts.items()},
            }
    return {"cases": found}


def described(case: Case) -> dict[str, Any]:
    """Returns what the results say of a case: by this they know whether it is still the same."""
    return {
        "title": case.title,
        "epochs": case.stages[-1],
        "labels": {row: setting.label for row, setting in case.rows.items()},
        "settings": dict(case.rows),
        "core": case.core,
        "recipe": case.recipe(),
    }


def restore(results: Mapping[str, Any], folder: Path) -> None:
    """Puts what results hold of each block beside the states, where nothing was measured yet: so it counts as trained.

    Args:
      results: as `run` returned them. A case whose rows, recipe or length are others now is left out.
      folder: of the states.
    """
    for name, stored in results["cases"].items():
        if name not in CASES or not agree(stored, described(CASES[name])):
            continue
        for block, entries in stored["blocks"].items():
            rows, seed = [row["row"] for row in entries[-1]["rows"]], int(block.rsplit("_", 1)[1])
            if blocks_lib.Block(name, block, tuple(rows), seed) not in blocks_lib.blocks(
                name, CASES[name], seed + 1, seed + 1
            ):
                continue  # a block of this name has other rows now
            part = folder / name / block
            if not (part / blocks_lib.MEASURED).exists():
                part.mkdir(parents=True, exist_ok=True)
                write_json(part / blocks_lib.SETTINGS, blocks_lib.settings(CASES[name], rows, seed))
                write_json(part / blocks_lib.MEASURED, entries, indent=None)
