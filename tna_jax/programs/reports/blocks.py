"""What a result is described by: numbers, tables, figures (see `figures`), sentences. Renderers alone know how each looks."""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tna_jax.programs.reports.figures import Figure


@dataclasses.dataclass(frozen=True)
class Number:
    """A headline number."""

    label: str
    """What it is; runs are compared by it."""
    value: str
    note: str = ""
    minor: bool = False
    """Shown where runs are compared, not at the head of a run."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts."""

    caption: str
    heads: list[str]
    rows: list[list[str]]
    keys: int = 1
    """The first columns, which name the rows; rows with the same first key belong together."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What one results file says, from its contents alone."""

    title: str
    heading: str = ""
    """Data, network and training in a line: above the tables of the terminal and the PNG."""
    lead: str = ""
    """Sentences in front, on the page."""
    numbers: list[Number] = dataclasses.field(default_factory=list)
    blocks: "list[Table | Figure]" = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    """Sentences below the tables."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What a reader must not miss: networks that diverged, a run that is not finished."""

    @property
    def tables(self) -> list[Table]:
        """The tables among the blocks."""
        return [block for block in self.blocks if isinstance(block, Table)]

    @property
    def figures(self) -> "list[Figure]":
        """The figures among the blocks."""
        return [block for block in self.blocks if not isinstance(block, Table)]
