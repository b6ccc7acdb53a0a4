"""The option that names what is trained and measured, shipped or of the user's own, and its options. Needs no JAX."""

import dataclasses
from typing import Annotated, Any, ClassVar, get_args

from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli import pairs
from tna_jax.programs.cli.arguments import Hidden, Known
from tna_jax.programs.cli.choices import OBJECTIVE_OPTIONS, Objective
from tna_jax.programs.cli.pairs import PAIRS
from tna_jax.programs.cli.ranges import Rule
from tna_jax.programs.user_code import is_reference
from tna_jax.programs.user_code.references import FORM

OBJECTIVES: tuple[str, ...] = get_args(Objective)


def _objective(flag: str, name: str) -> str:
    if name in OBJECTIVES or is_reference(name):
        return ""
    if ".py" in name or "/" in name:
        return f"{flag} {name}: expected {FORM}"
    return f"{unknown(flag, name, OBJECTIVES)}; or one of your own, {FORM}"


@dataclasses.dataclass(frozen=True)
class ObjectiveOptions:
    """What is trained and measured?"""

    SECTION: ClassVar[str] = "network"

    objective: Annotated[str, Rule(_objective), Known(OBJECTIVES)] = "classification"
    """What is trained and measured; others than classification need targets that fit them. Or one of your own: ./FILE.py:NAME or
    PACKAGE.MODULE:NAME, a function that returns a tna_jax.objectives.Objective."""
    objective_options: Annotated[tuple[str, ...] | None, PAIRS] = None
    """Options of the objective: ignore=ID (next-token, masked-lm, segmentation), loss=absolute (regression); of one of your own
    the arguments of its function."""
    objective_sha256: Annotated[str | None, Hidden()] = None
    """The hash of the file of an objective of the user's own, as a run records it."""

    @property
    def own_objective(self) -> bool:
        """Whether the objective is the user's."""
        return self.objective not in OBJECTIVES

    @property
    def objective_arguments(self) -> dict[str, Any]:
        """The options of the objective; raises UsageError for those that a shipped one does not have."""
        arguments = pairs.values(self.objective_options)
        if self.own_objective:
            return arguments
        allowed = OBJECTIVE_OPTIONS.get(self.objective, {})
        words = " ".join(f"{name}={_form(kind)}" for name, kind in allowed.items()) or "none"
        wrong = [
            f"{name}={value}"
            for name, value in arguments.items()
            if name not in allowed or not _holds(allowed[name], value)
        ]
        if wrong:
            raise UsageError(
                f"--objective-options {' '.join(wrong)}: the options of --objective {self.objective} are: {words}"
            )
        return arguments

    def check_objective(self) -> None:
        """Raises UsageError for options that the objective does not have."""
        _ = self.objective_arguments


def _form(kind: Any) -> str:
    return "N (a whole number)" if kind is int else "|".join(kind)


def _holds(kind: Any, value: Any) -> bool:
    """Whether a value is a whole number of int32, or one of the words."""
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return isinstance(value, str) and value in kind
