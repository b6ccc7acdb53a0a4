"""What the server knows of each client: which version of the model it holds, and the last round of which its update was accepted."""

from tna_jax.flower.protocol import LIVE, NEVER, SAME, WHOLE


class Ledger:
    """Clients that are not listed hold nothing."""

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self.accepted: dict[int, int] = {}

    def delivery(self, client: int, version: int) -> str:
        """Returns how the model of this version is to be sent: whole, its live entries, or not at all."""
        return {version: SAME, version - 1: LIVE}.get(self.versions.get(client, NEVER - 1), WHOLE)

    def last_accepted(self, client: int) -> int:
        """Returns the last round of which the client's update was accepted, `NEVER` if there is none."""
        return self.accepted.get(client, NEVER)

    def holds(self, client: int, version: int) -> None:
        """Notes that the client has answered a request that gave it this version."""
        self.versions[client] = version

    def lost(self, client: int) -> None:
        """Notes that it did not answer, or has said that it holds nothing: it gets the whole model."""
        self.versions.pop(client, None)
