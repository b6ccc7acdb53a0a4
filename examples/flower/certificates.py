"""Certificates and keys of a federation: TLS for the SuperLink, a key pair for each SuperNode. For trials on one machine.

`make` writes what `docs/flower.md` tells an operator to make: an authority of one's own, a certificate for the SuperLink
signed by it, and elliptic-curve keys (P-384) with which the SuperNodes prove who they are. Between machines the authority's key
stays with whoever runs the federation, and each SuperNode makes its own key and hands in the public half.
"""

import dataclasses
import subprocess
from pathlib import Path

DAYS = 30
"""How long certificates last if nothing else is said."""


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
        """Options of `flower-superlink`."""
        return [
            "--ssl-ca-certfile", str(self.authority), "--ssl-certfile", str(self.folder / "server.crt"),
            "--ssl-keyfile", str(self.folder / "server.key"), "--enable-supernode-auth",
        ]  # fmt: skip

    def supernode_words(self, node: int) -> list[str]:
        """Options of `flower-supernode`. What it says to its own workers, on its own machine, is encrypted too."""
        return [
            "--root-certificates", str(self.authority), "--auth-supernode-private-key", str(self.private_key(node)),
            "--ssl-ca-certfile", str(self.authority), "--ssl-certfile", str(self.folder / "server.crt"),
            "--ssl-keyfile", str(self.folder / "server.key"),
        ]  # fmt: skip


def make(
    folder: Path, nodes: int, hosts: tuple[str, ...] = ("localhost", "127.0.0.1"), days: int = DAYS
) -> Certificates:
    """An authority, a SuperLink's certificate for `hosts` (names or IPv4 addresses), valid for `days`, and `nodes` key pairs.

    Raises:
      FileNotFoundError: there is no `openssl`.
      RuntimeError: `openssl` failed; its words are in the message.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = ",".join(f"IP:{host}" if host.replace(".", "").isdigit() else f"DNS:{host}" for host in hosts)
    (folder / "server.ext").write_text(
        f"subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
    )
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes"]
    (folder / "ca.cnf").write_text(
        "[req]\nprompt=no\ndistinguished_name=name\nx509_extensions=own\n[name]\nCN=tna_jax trial authority\n"
        "[own]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
    )
    _openssl(
        folder, "req", "-x509", "-config", "ca.cnf", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", str(days)
    )
    _openssl(folder, "req", "-new", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={hosts[0]}")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "server.ext", "-days", str(days)]
    _openssl(folder, "x509", "-req", "-in", "server.csr", "-out", "server.crt", *signed)
    for node in range(nodes):
        make_node_key(folder, node)
    return Certificates(folder.resolve())


def make_node_key(folder: Path, node: int) -> None:
    """A key pair for one SuperNode: `nodeI.key` (private) and `nodeI.pub` (OpenSSH form, as Flower takes it)."""
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


def _openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(["openssl", *words], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {words[0]} failed: {done.stderr.strip()}")
