"""What `tna federate` runs where nothing was asked for: a small setting in which anchors make a difference.

How it was chosen, and the settings in which they make none: docs/federated.md, `python -m fusion federated_default`.
"""

import dataclasses
from typing import Any

from tna_jax.programs.cli import parsing
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.training.setup import result_options

DEMONSTRATION: dict[str, Any] = {
    "dataset": "digits", "depth": 2, "width": 100, "server": "fedavgm", "participation": 0.5, "alpha": 0.1, "rounds": 10,
    "epochs": 5, "batch_size": 8, "seeds": 10,
}  # fmt: skip
"""Options: clients that differ much, half of them in a round, and momentum on the server.

So unsteady a federation amplifies rounding: with three seeds it depends on the processor whether the gain is beyond the spread.
"""


def is_asked_for(settings: FederateOptions) -> bool:
    """Returns whether no option was given that shapes a result."""
    return result_options(settings) == result_options(FederateOptions())


def demonstration(settings: FederateOptions) -> FederateOptions:
    """Returns the options of the demonstration, with where and how it is to run as in `settings`."""
    return dataclasses.replace(settings, **DEMONSTRATION)


def command() -> str:
    """Returns the command that says all of it."""
    return " ".join(["tna federate", *parsing.to_words(DEMONSTRATION)])
