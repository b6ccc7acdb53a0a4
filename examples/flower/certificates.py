"""Certificates and keys for a trial federation: TLS for the SuperLink, a key pair for each SuperNode. `pip install trustme`.

`make` writes what `docs/flower.md` tells an operator to make: the certificate of an authority, a certificate for the SuperLink
signed by it, and elliptic-curve keys (P-384) with which the SuperNodes prove who they are. The authority lives in memory alone and
its certificate lasts for centuries: for trials and tests, not for a federation between machines.
"""

import dataclasses
import datetime
from pathlib import Path

DAYS = 30
"""How long the SuperLink's certificate lasts by default."""


@dataclasses.dataclass(frozen=True)
class Certificates:
    """The files, under one folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate (PEM): what everybody needs to know that the SuperLink is the right one."""
        return self.folder / "ca.crt"

    def private_key(self, node: int) -> Path:
        """A SuperNode's key; it never leaves the node."""
        return self.folder / f"node{node}.key"

    def public_key(self, node: int) -> Path:
        """What the operator registers with `flwr supernode register`."""
        return self.folder / f"node{node}.pub"

    def superlink_words(self) -> list[str]:
        """Returns the options of `flower-superlink`."""
        return [
            "--ssl-ca-certfile", str(self.authority), "--ssl-certfile", str(self.folder / "server.crt"),
            "--ssl-keyfile", str(self.folder / "server.key"), "--enable-supernode-auth",
        ]  # fmt: skip

    def supernode_words(self, node: int) -> list[str]:
        """Returns the options of `flower-supernode`. What it says to its workers, on its machine, is encrypted too."""
        return [
            "--root-certificates", str(self.authority), "--auth-supernode-private-key", str(self.private_key(node)),
            "--ssl-ca-certfile", str(self.authority), "--ssl-certfile", str(self.folder / "server.crt"),
            "--ssl-keyfile", str(self.folder / "server.key"),
        ]  # fmt: skip


def make(
    folder: Path, nodes: int, hosts: tuple[str, ...] = ("localhost", "127.0.0.1"), days: int = DAYS
) -> Certificates:
    """Makes an authority, a SuperLink's certificate for `hosts` (names or addresses), valid for `days`, and `nodes` key pairs."""
    import trustme

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = trustme.CA()
    expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    server = authority.issue_cert(*hosts, common_name=hosts[0], not_after=expiry)
    authority.cert_pem.write_to_path(folder / "ca.crt")
    server.cert_chain_pems[0].write_to_path(folder / "server.crt")
    (folder / "server.key").touch(mode=0o600)
    server.private_key_pem.write_to_path(folder / "server.key")
    for node in range(nodes):
        make_node_key(folder, node)
    return Certificates(folder.resolve())


def make_node_key(folder: Path, node: int) -> None:
    """Makes a key pair for one SuperNode: `nodeI.key` (private) and `nodeI.pub` (OpenSSH form, as Flower takes it)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    file = folder / f"node{node}.key"
    file.touch(mode=0o600)
    file.write_bytes(private)
    (folder / f"node{node}.pub").write_bytes(public + b"\n")
