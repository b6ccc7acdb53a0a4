"""Trains a block, the rows of a case for one pair number, in slices that resume where the last one stopped."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import ensemble, placement
from tna_jax.ensemble import Members
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json, write_json
from tna_jax.io.provenance import provenance
from tna_jax.programs.cli.progress import console
from train.record import members as members_lib
from train.record import pairs as pairs_lib
from train.record import state
from train.record.members import Network
from train.record.settings import Case

MEASURED = "measured.json"
SETTINGS = "settings.json"
SAVE_SECONDS = 240.0
"""Between two states that are written within a slice."""


class Block(NamedTuple):
    """Rows of a case that train together, for one pair number."""

    case: str
    name: str
    rows: tuple[str, ...]
    seed: int


def blocks(name: str, case: Case, pairs: int, others: int) -> list[Block]:
    """Returns a case's blocks in the order in which they are trained: the core rows' pairs, and after each the other rows'.

    Args:
      name: of the case.
      case: its rows.
      pairs: how many pairs the core rows get.
      others: how many the other rows get, at most as many.
    """
    rest = [row for row in case.rows if row not in case.core]
    size = case.members // 2
    parts = [tuple(rest[i : i + size]) for i in range(0, len(rest), size)]
    chosen = [Block(name, f"core_{seed}", case.core, seed) for seed in range(pairs)]
    for seed in range(min(pairs, others)):
        chosen += [Block(name, f"rest_{chr(97 + i)}_{seed}", part, seed) for i, part in enumerate(parts)]
    return chosen


def advance(block: Block, case: Case, network: Network, folder: Path, until: int, deadline: float) -> bool:
    """Trains a block up to epoch `until`, or until the deadline comes; returns whether it got there.

    Args:
      block, case, network: what to train.
      folder: of the block: `settings.json`, its state, and `measured.json`, which grows at the epochs that are measured.
      until: one of the case's stages.
      deadline: of `time.monotonic()`; the epoch that would pass it is not begun.

    Raises:
      UsageError: the folder holds networks of other settings.
    """
    claim(folder, block, case)
    rows_by_epoch = measured(folder)
    if rows_by_epoch and rows_by_epoch[-1]["epoch"] >= until:
        return True
    start, pairs = members_lib.build(case, network, block.rows, block.seed)
    before, done, current = start, 0, start
    written = state.newest(folder)
    if written is not None:
        done, trained = state.read(written, ensemble.trained_part(start))
        current = ensemble.with_trained(start, trained)
        if not _anchors_equal(start, current):
            raise UsageError(f"{written}: its anchors are not those of {block.case} {block.name}; move the folder away")
    rows_by_epoch = [entry for entry in rows_by_epoch if entry["epoch"] <= done]  # the rest is measured again
    longest, saved = 0.0, time.monotonic()
    inputs, labels = network.train
    while done < until:
        began = time.monotonic()
        if began + 1.1 * longest > deadline:
            _save(folder, done, current)
            return False
        current, sums = one_epoch(network, current, case.rate(done), inputs, labels, done)
        done += 1
        longest = max(longest, time.monotonic() - began)
        losses = np.asarray(sums.loss)
        console.print(
            f"{block.case} {block.name} epoch {done}: {time.monotonic() - began:.1f} s, loss {losses.min():.3f} to {losses.max():.3f}"
        )
        if done in (*case.measured_at, *case.stages):
            last = done in case.stages
            rows = pairs_lib.measure(case, network, before, current, pairs, complete=last)
            entry = {"epoch": done, "complete": last, "train_loss": losses, "rows": rows}
            rows_by_epoch.append(to_json(entry | ({"provenance": provenance([block.seed])} if last else {})))
            write_json(folder / MEASURED, rows_by_epoch, indent=None)
            longest = max(longest, time.monotonic() - began)
        if done == until or time.monotonic() - saved > SAVE_SECONDS:
            _save(folder, done, current)
            saved = time.monotonic()
    return True


def settings(case: Case, rows: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns by what a block is known, in JSON's types: settings of its rows in their order, recipe of the case, seed."""
    chosen: dict[str, Any] = to_json(
        {"rows": [[name, case.rows[name]] for name in rows], "recipe": case.recipe(), "seed": seed}
    )
    return chosen


def claim(folder: Path, block: Block, case: Case) -> None:
    """Writes down what a block's folder is for.

    Raises:
      UsageError: it holds networks of other settings, or does not say of which.
    """
    file, wanted = folder / SETTINGS, settings(case, block.rows, block.seed)
    if not file.exists():
        if (folder / MEASURED).exists() or state.newest(folder) is not None:
            raise UsageError(
                f"{folder} does not say with which settings it was trained; move it away to train it again"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, wanted)
    found = json.loads(file.read_text())
    if found != wanted:
        other = ", ".join(name for name in wanted if found.get(name) != wanted[name])
        raise UsageError(
            f"{folder} was trained with other settings than {block.case} {block.name} has now ({other}); move it away"
        )


def _anchors_equal(start: Members, current: Members) -> bool:
    leaves = zip(*map(jax.tree.leaves, (start.mask, start.params, current.params)), strict=True)
    return all(
        np.array_equal(np.asarray(a)[~np.asarray(m)], np.asarray(b)[~np.asarray(m)], equal_nan=True)
        for m, a, b in leaves
    )


def measured(folder: Path) -> list[dict[str, Any]]:
    """Returns what was measured of a block so far, in the order of the epochs."""
    file = folder / MEASURED
    entries: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    return entries


def one_epoch(
    network: Network, members: Members, rate: float, inputs: Any, labels: Any, epoch: int
) -> tuple[Members, Any]:
    """Trains all members for one epoch at one rate, and returns them on the host."""
    rates = {**members.hyper, "rate": jnp.full(members.data_keys.shape[0], rate, jnp.float32)}
    trained, history = ensemble.train_ensemble(
        network.trainer, members._replace(hyper=rates), inputs, labels, epoch + 1, start=epoch
    )
    on_host = jax.tree.map(np.asarray, placement.to_host(ensemble.trained_part(trained)))
    return ensemble.with_trained(members, on_host), history[-1]


def _save(folder: Path, epoch: int, current: Members) -> None:
    state.save(folder, epoch, ensemble.trained_part(current))
