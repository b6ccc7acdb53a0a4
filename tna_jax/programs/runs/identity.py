"""Whether a run folder still holds the run that was opened: meanwhile `--overwrite` may have put another there, or somebody removed it.

Programs that read a run lock nothing, so that it may go on and be looked at by several. They ask here before and after they
write: results of models that are gone never become the new run's.
"""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import write_json
from tna_jax.io.run_folder import CONFIG, PROVENANCE
from tna_jax.programs.cli.messages import shell_words


class Identity(NamedTuple):
    """A run as it was found: what one of its files holds that no run changes once it has begun."""

    folder: Path
    file: str
    """provenance.json; of a run that lost it config.json, which extending a federation changes."""
    held: bytes | None

    @classmethod
    def of(cls, folder: Path) -> "Identity":
        """Reads it."""
        file = PROVENANCE if (folder / PROVENANCE).is_file() else CONFIG
        return cls(folder, file, _contents(folder / file))

    def stands(self) -> bool:
        """Returns whether the folder still holds that run."""
        return _contents(self.folder / self.file) == self.held

    def require(self, rest: str = "the same command again reads what is there now") -> None:
        """Raises UsageError unless it does."""
        if not self.stands():
            raise UsageError(
                f"{self.folder} is not the run any more that was read: it was replaced or removed meanwhile; {rest}"
            )

    def keep(self, name: str, value: Any) -> None:
        """Writes a results file beside the folder instead, where nothing is replaced; raises UsageError that says so."""
        folder = self.folder.absolute()
        places = (
            folder.with_name(f"{folder.name}-before{number}.{name}")
            for number in itertools.chain([""], itertools.count(2))
        )
        place = next(place for place in places if not place.exists())
        try:
            write_json(place, value)
        except OSError as error:
            self.require(
                f"the results of its models could not be written to {place} either ({error.strerror or error})"
            )
        self.require(
            f"the results of the models that it held are in {place}: {shell_words('tna', 'report', str(place))}"
        )


def _contents(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
