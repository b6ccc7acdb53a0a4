"""A run that was extended: up to which round each start of it went, and where every federation of its plan stood there.

A plan has several runs (seeds, mask schedules), done one after the other up to the rounds that were asked for: a stage. An extension is a
stage more: all of them again, from there. The last state of each is kept until the next stage is over, so that the extended run is
bit for bit the one that was asked for at first.
"""

import dataclasses
import shutil
from typing import Any

import jax
import numpy as np

from tna_jax.io import manifest, safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.programs.runs.folder import CONFIG, ENDS, PLAN, ROUNDS, Run


@dataclasses.dataclass(frozen=True)
class Stages:
    """The steps of a run, in their order."""

    runs: int
    """Of the plan."""
    ends: tuple[int, ...]
    """Rounds up to which each stage goes, growing."""

    @property
    def steps(self) -> int:
        """Rounds of all runs together."""
        return self.runs * self.ends[-1]

    def at(self, step: int) -> tuple[int, int, int, int]:
        """Returns of a step, from 0: the run, the round, and where its stage begins and ends."""
        begin = 0
        for end in self.ends:
            if step < self.runs * end:
                run, number = divmod(step - self.runs * begin, end - begin)
                return run, begin + number, begin, end
            begin = end
        raise IndexError(f"step {step} of {self.steps}")


def read(folder: Run, runs: int, rounds: int) -> Stages:
    """Returns the stages up to `rounds` of a run that is resumed; one of before has a single one."""
    ends = folder.read(ROUNDS)["rounds"] if folder.has(ROUNDS) else []
    return Stages(runs, (*(end for end in ends if end < rounds), rounds))


def begin(folder: Run, stages: Stages) -> None:
    """Writes the stages of a new run, whose folder may hold what another one kept."""
    shutil.rmtree(folder.folder / ENDS, ignore_errors=True)
    write(folder, stages)


def write(folder: Run, stages: Stages) -> None:
    """Writes the stages of a run."""
    folder.write(ROUNDS, {"format": FORMAT, "rounds": list(stages.ends)})


def extend(folder: Run, rounds: int, results: tuple[str, ...]) -> None:
    """Makes a run that is resumed one of more rounds, if it has fewer; its results are those of before, and go.

    Raises:
      UsageError: it has more rounds already, or was made before ends were kept.
    """
    if not folder.has(CONFIG) or not folder.has(PLAN):
        return
    config = folder.read(CONFIG)
    before = config.get("rounds")
    if type(before) is not int or before == rounds:
        return
    if rounds < before:
        raise UsageError(f"--rounds {rounds}: {folder.folder} has {before} already; name more, to extend it")
    runs = len(folder.plan()[0])
    if runs > 1 and not folder.has(ROUNDS):
        raise UsageError(
            f"--rounds {rounds}: {folder.folder} was made by a version that did not keep where its {runs} runs ended"
        )
    stages = read(folder, runs, before)
    write(folder, Stages(runs, (*stages.ends, rounds)))
    for name in results:  # first: a run of more rounds is not finished, whatever stops this program
        (folder.folder / name).unlink(missing_ok=True)
    folder.write(CONFIG, {**config, "rounds": rounds})


def keep(folder: Run, run: int, end: int, tree: Any) -> None:
    """Keeps the state of a run at the end of a stage."""
    name = f"{ENDS}/{end}/{run}.safetensors"
    with folder.writing(name):
        (folder.folder / name).parent.mkdir(parents=True, exist_ok=True)
        safetensors.write(folder.folder / name, manifest.named(tree))


def end_of(folder: Run, run: int, end: int, like: Any) -> Any:
    """Returns the state of a run at the end of a stage, NumPy, in the form of `like`.

    Raises:
      UsageError: it is not there, or not that of this run.
    """
    file = folder.folder / ENDS / str(end) / f"{run}.safetensors"
    if not file.is_file():
        raise UsageError(f"{file} is gone: without it run {run + 1} of {folder.folder} cannot be extended")
    arrays, expected = safetensors.read(file)[0], manifest.named(like)
    if {name: (a.shape, str(a.dtype)) for name, a in arrays.items()} != {
        name: (np.shape(a), str(a.dtype)) for name, a in expected.items()
    }:
        raise UsageError(f"{file} does not fit this run")
    return jax.tree.unflatten(jax.tree.structure(like), [np.array(arrays[name]) for name in expected])


def forget(folder: Run, stages: Stages) -> None:
    """Removes the states of stages before the last one, when that is over."""
    for end in stages.ends[:-1]:
        shutil.rmtree(folder.folder / ENDS / str(end), ignore_errors=True)
