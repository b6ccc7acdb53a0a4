"""The options of `tna devices`."""

import dataclasses

from tna_jax.io.errors import collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.run_options import MachineOptions


@dataclasses.dataclass(frozen=True)
class DevicesOptions(MachineOptions):
    """Show what JAX sees here, how models would be placed on it, and how fast it multiplies matrices."""

    measure: bool = False
    """Also time a large matrix product on one device (a few seconds)."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(lambda: ranges.check(self), self.check_machine)
