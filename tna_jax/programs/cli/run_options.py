"""The options of the run folder and of the machine, which most programs have. They import no JAX."""

import dataclasses
from typing import Annotated, ClassVar

from tna_jax.io.errors import UsageError
from tna_jax.programs.cli.arguments import Only
from tna_jax.programs.cli.choices import Precision
from tna_jax.programs.cli.progress import console
from tna_jax.programs.cli.ranges import COUNT, NOT_NEGATIVE
from tna_jax.programs.system import trackers


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where does it go?"""

    SECTION: ClassVar[str] = "run"

    out: str | None = None
    """Run folder to make; default: runs/PROGRAM-DATASET-TIME."""
    overwrite: Annotated[bool, Only("out")] = False
    """Replace the run in --out."""
    resume: bool = False
    """Resume the interrupted run in --out, to the same result."""
    checkpoint_minutes: Annotated[float, NOT_NEGATIVE] = 5.0
    """Save the training's state at least this often (and when interrupted), in minutes."""
    checkpoint_every: Annotated[int | None, COUNT] = None
    """Also save after every so many epochs."""
    checkpoints_kept: Annotated[int, COUNT] = 2
    """Keep this many of the last checkpoints: if the newest is damaged, the one before it is used."""
    log: str | None = None
    """Also show the run live: tensorboard, wandb, or both with a comma between (WANDB_MODE=offline: without a network)."""

    def check_run(self) -> None:
        """Raises UsageError for trackers that are not there, and a run that cannot be resumed."""
        trackers.chosen(self.log)
        if self.resume and (self.overwrite or self.out is None):
            raise UsageError("--resume needs the --out of the run to resume, and no --overwrite")


@dataclasses.dataclass(frozen=True)
class TrustOptions:
    """Which code of others may run? For programs that take a network or data of the user's own."""

    SECTION: ClassVar[str] = "machine"

    trust_code: bool = False
    """Run code that a run folder names although you never named that file here, or it has changed: read it first."""


@dataclasses.dataclass(frozen=True)
class MachineOptions:
    """On which machines and devices?"""

    SECTION: ClassVar[str] = "machine"

    cpu_devices: Annotated[int | None, COUNT] = None
    """CPU devices of a process to spread the models over; default: one per core."""
    precision: Precision = "float32"
    """Arithmetic of the networks; tf32 is for matrix products on NVIDIA GPUs. Parameters stay float32."""
    distributed: bool = False
    """Run as one process of several, as the cluster says (TPU pod, SLURM, Open MPI): start the same command on each host."""
    coordinator: str | None = None
    """Run as one process of several: address of process 0, HOST:PORT; with --num-processes and --process-id."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Number of this process, from 0."""

    def check_machine(self) -> None:
        """Raises UsageError for options that do not go together; of several processes the first speaks from now on."""
        explicit = (self.coordinator, self.num_processes, self.process_id)
        if any(value is not None for value in explicit):
            if any(value is None for value in explicit):
                raise UsageError("--coordinator, --num-processes and --process-id go together: give all three")
            if not 0 <= (self.process_id or 0) < (self.num_processes or 0):
                raise UsageError(
                    f"--process-id must lie in 0 to {(self.num_processes or 0) - 1}, got {self.process_id}"
                )
            if ":" not in (self.coordinator or ""):
                raise UsageError(f"--coordinator must be HOST:PORT, got {self.coordinator}")
            console.quiet = bool(self.process_id)
