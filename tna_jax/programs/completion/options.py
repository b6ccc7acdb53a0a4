"""The options of `tna completion`."""

import dataclasses
from typing import Annotated, Literal

from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Positional


@dataclasses.dataclass(frozen=True)
class CompletionOptions:
    """Print a script with which a shell completes tna, its programs, their options and choices."""

    shell: Annotated[Literal["bash", "zsh", "fish"], Positional("SHELL")]
    """bash: write the script to ~/.local/share/bash-completion/completions/tna; zsh: to _tna in a folder of $fpath; fish: to
    ~/.config/fish/completions/tna.fish."""

    def check(self) -> None:
        """Raises UsageError for an unknown shell."""
        ranges.check(self)
