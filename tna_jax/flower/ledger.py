"""What the server knows of each client: which version of the model it holds, and the last round whose reply was taken."""

from tna_jax.flower.protocol import LIVE, NEVER, SAME, WHOLE


class Ledger:
    """Clients that are not listed hold nothing."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.taken: dict[int, int] = {}

    def how(self, client: int, version: int) -> str:
        """How the model of this version is to be sent: whole, its live entries, or not at all."""
        return {version: SAME, version - 1: LIVE}.get(self.held.get(client, NEVER - 1), WHOLE)

    def last_taken(self, client: int) -> int:
        """The number of the last round whose reply was taken, `NEVER` if there is none."""
        return self.taken.get(client, NEVER)

    def holds(self, client: int, version: int) -> None:
        """The client has answered a request that gave it this version."""
        self.held[client] = version

    def lost(self, client: int) -> None:
        """It did not answer, or has said that it holds nothing: it gets the whole model."""
        self.held.pop(client, None)
