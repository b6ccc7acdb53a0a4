"""The options of programs that take a network and an objective of the user's own. They import no JAX."""

import dataclasses
import re
from typing import Annotated, Any, ClassVar, get_args

from tna_jax.io.errors import UsageError, unknown
from tna_jax.programs.cli import pairs
from tna_jax.programs.cli.arguments import Hidden, Known
from tna_jax.programs.cli.choices import TEXT_MODELS, ImageModel
from tna_jax.programs.cli.objective_options import ObjectiveOptions
from tna_jax.programs.cli.options import ModelOptions
from tna_jax.programs.cli.pairs import PAIRS
from tna_jax.programs.cli.ranges import Rule
from tna_jax.programs.cli.run_options import TrustOptions
from tna_jax.programs.user_code import is_reference
from tna_jax.programs.user_code.references import FORM

MODELS: tuple[str, ...] = get_args(ImageModel)


def _model(flag: str, name: str) -> str:
    if name in MODELS or is_reference(name):
        return ""
    if ".py" in name or "/" in name:
        return f"{flag} {name}: expected {FORM}"
    if name.startswith(TEXT_MODELS):
        return f"{flag} {name} reads text, and this program trains on images"
    return f"{unknown(flag, name, MODELS)}; or a network of your own, {FORM}"


@dataclasses.dataclass(frozen=True)
class AnyModelOptions(ObjectiveOptions, ModelOptions, TrustOptions):
    """Which network, of this library or of the user's own, and what is trained?"""

    SECTION: ClassVar[str] = "network"

    model: Annotated[str, Rule(_model), Known(MODELS)] = "mlp"  # type: ignore[assignment]
    """Network, or one of your own: ./FILE.py:NAME or PACKAGE.MODULE:NAME, a function that returns a Linen, NNX or Equinox module."""
    model_options: Annotated[tuple[str, ...] | None, PAIRS] = None
    """Options of a network of your own: arguments of its function, values as in JSON, else text."""
    model_sha256: Annotated[str | None, Hidden()] = None
    """The hash of the file of a network of the user's own, as a run records it."""

    @property
    def own_model(self) -> bool:
        """Whether the network is the user's."""
        return self.model not in MODELS

    @property
    def model_word(self) -> str:
        """The network in a word, for names of folders."""
        return re.sub(r"\W+", "-", self.model.rpartition("/")[2]).strip("-") if self.own_model else self.model

    @property
    def factory_options(self) -> dict[str, Any]:
        """The arguments of a network of the user's own."""
        return pairs.values(self.model_options)

    def check_model(self) -> None:
        """Raises UsageError for options that the network, or the objective, does not have."""
        self.check_objective()
        if not self.own_model:
            if self.model_options:
                raise UsageError(
                    "--model-options are for a network of your own; write the option itself, as --width 64"
                )
            super().check_model()
            return
        odd = [f"--{field.name}" for field in dataclasses.fields(ModelOptions)
               if field.name != "model" and getattr(self, field.name) is not None]  # fmt: skip
        if odd:
            instead = " ".join(f"{name[2:]}={getattr(self, name[2:])}" for name in odd)
            raise UsageError(f"{' '.join(odd)}: a network of your own takes --model-options {instead}")

    def describe(self) -> str:
        """Returns the network in a few words: of the user's own the function and its options."""
        if not self.own_model:
            return super().describe()
        place, _, name = self.model.rpartition(":")
        return " ".join([f"{place.rpartition('/')[2]}:{name}", *(self.model_options or ())])
