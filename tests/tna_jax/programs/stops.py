"""Interruptions at a chosen moment."""

from tna_jax.programs.cli.progress import Stop


class After(Stop):
    """A stop that is asked for after some looks (of a program that looks once an epoch: epochs)."""

    def __init__(self, looks: int):
        self.left = looks

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left < 0

    @asked.setter
    def asked(self, value: bool) -> None:
        self.left = -1
