"""The options of `tna resume`: those of the resumed program that do not shape its result."""

import dataclasses
from typing import Annotated

from tna_jax.io.errors import collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Positional
from tna_jax.programs.cli.ranges import BOUND, COUNT, NOT_NEGATIVE
from tna_jax.programs.system import trackers


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Resume an interrupted run where it stopped, to the same result.

    The run's config.json says what was asked for. Options replace those that the run was started with; on several machines give
    --distributed, or --coordinator, --num-processes and --process-id.
    """

    run: Annotated[str, Positional("RUN")]
    """Run folder of tna lmc, train, pretrain, soup, cold or federate."""
    rounds: Annotated[int | None, COUNT] = None
    """Extend a run of tna federate to so many rounds in all."""
    data_dir: str | None = None
    """Folder that holds the data sets."""
    download: bool = False
    """Let TensorFlow Datasets download the set if it is found nowhere."""
    checkpoint_minutes: Annotated[float | None, NOT_NEGATIVE] = None
    """Save the training's state at least this often (and when interrupted), in minutes."""
    checkpoint_every: Annotated[int | None, COUNT] = None
    """Also save after every so many epochs."""
    checkpoints_kept: Annotated[int | None, COUNT] = None
    """Keep this many of the last checkpoints."""
    log: str | None = None
    """Also show the run live: tensorboard, wandb, or both with a comma between."""
    memory_limit: Annotated[float | None, BOUND] = None
    """Memory the models may take, in GB, on each device (CPU: in all)."""
    cpu_devices: Annotated[int | None, COUNT] = None
    """CPU devices of a process to spread the models over."""
    trust_code: bool = False
    """Run code that the run folder names although you never named that file here: read it first."""
    distributed: bool = False
    """Run as one process of several, as the cluster says (TPU pod, SLURM, Open MPI): start the same command on each host."""
    coordinator: str | None = None
    """Run as one process of several: address of process 0, HOST:PORT; with --num-processes and --process-id."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Number of this process, from 0."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before the run is read."""
        collect_errors(lambda: ranges.check(self), lambda: trackers.chosen(self.log))
