"""A Flower federation on one machine: a SuperLink and several SuperNodes, which end when the block ends, whatever happened.

    with Federation(folder, nodes=[{"partition-id": 0}, {"partition-id": 1}]) as federation:
        text = federation.run("examples/flower", {"num-rounds": 3})

Nothing outside `folder` is written and no network is used: Flower's home is in it, telemetry, update checks and the
installation of an app's dependencies are off. Flower itself is not imported here; its programs must lie beside this Python.
"""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.flower.certificates import Certificates

NAME = "local"
"""What the SuperLink is called in Flower's configuration."""
GRACE = 5.0
"""Seconds between the request to end and the end."""
END_WITH_PARENT = "import ctypes, os, sys\nif sys.platform == 'linux': ctypes.CDLL(None).prctl(1, 15)\nos.execv(sys.argv[1], sys.argv[1:])"
"""On Linux a process is told to end (SIGTERM) when the one that started it is gone, however that ended: PR_SET_PDEATHSIG."""


class Federation:
    """The processes of a federation. Their logs are `superlink.log`, `node0.log`, ... in the folder."""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[Mapping[str, Any]],
        *,
        certificates: Certificates | None = None,
        environment: Mapping[str, str] | None = None,
        through: int | None = None,
        port: int | None = None,
    ):
        """Starts nothing yet.

        Args:
          folder: for Flower's home and the logs.
          nodes: the configuration of each SuperNode, text, numbers or bools by name (`--node-config`).
          certificates: TLS and node authentication; `None`: neither.
          environment: variables to add for all processes.
          through: the port the nodes connect to, if it is not the SuperLink's own (a relay that counts bytes).
          port: the SuperLink's; default: a free one.
        """
        self.folder, self.nodes, self.certificates = folder.resolve(), list(nodes), certificates
        self.port = port or free_port()
        self.through = through or self.port
        self.environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(programs()), os.environ.get("PATH", "")]),
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "UV_OFFLINE": "1",
            **(environment or {}),
        }
        self.started: list[subprocess.Popen] = []

    def __enter__(self) -> "Federation":
        if importlib.util.find_spec("flwr") is None:
            raise ModuleNotFoundError(
                "Flower is not installed: pip install 'tna-jax[federated]' in an environment of its own", name="flwr"
            )
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        secure = self.certificates
        connection = f'root-certificates = "{secure.authority}"' if secure else "insecure = true"
        (self.folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "{NAME}"\n\n[superlink.{NAME}]\naddress = "127.0.0.1:{self.port}"\n{connection}\n'
        )
        try:
            self._start("superlink", "flower-superlink", *self._superlink_words())
            self._wait_for(self.port, "superlink")
            if secure:
                for i in range(len(self.nodes)):
                    self.flwr("supernode", "register", str(secure.public_key(i)), NAME)
            for i in range(len(self.nodes)):
                self.start_node(i)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def _superlink_words(self) -> list[str]:
        words = ["--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", str(self.port)]
        return [*words, *(self.certificates.superlink_words() if self.certificates else ["--insecure"])]

    def start_node(self, i: int) -> subprocess.Popen:
        """Starts SuperNode `i`, for the first time or again."""
        config = " ".join(f"{key}={_toml(value)}" for key, value in self.nodes[i].items())
        words = ["--superlink", f"127.0.0.1:{self.through}", "--port", str(free_port()), "--node-config", config]
        secure = self.certificates.supernode_words(i) if self.certificates else ["--insecure"]
        return self._start(f"node{i}", "flower-supernode", *words, *secure)

    def flwr(self, *words: str, timeout: float = 600) -> str:
        """Runs the `flwr` command; returns what it printed. Raises RuntimeError if it fails."""
        command = [str(programs() / "flwr"), *words]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=timeout
        )
        text = done.stdout + done.stderr
        if done.returncode:
            raise RuntimeError(f"flwr {' '.join(words)} ended with {done.returncode}:\n{text}\n{self.logs()}")
        return text

    def run(self, app: Path | str, config: Mapping[str, Any] | None = None, timeout: float = 600) -> str:
        """Runs a Flower app to its end; returns its log.

        `flwr` reports success whatever the app did, so look for the app's own last line.

        Args:
          app: the folder with the app's pyproject.toml.
          config: its run configuration, only names that the app's pyproject.toml has.

        Raises:
          RuntimeError: `flwr run` failed.
          subprocess.TimeoutExpired: it took longer than `timeout` seconds.
        """
        words = ["run", str(Path(app).resolve()), NAME, "--stream"]
        options = " ".join(f"{key}={_toml(value)}" for key, value in (config or {}).items())
        return self.flwr(*words, *(["--run-config", options] if options else []), timeout=timeout)

    def logs(self) -> str:
        """What all processes have printed so far."""
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in sorted(self.folder.glob("*.log")))

    def end(self) -> None:
        """Ends everything that was started, and what that has started: a SuperNode's workers outlive it for a while."""
        for process in reversed(self.started):
            process.terminate()
        deadline = time.monotonic() + GRACE
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            process.kill()
            process.wait()
        deadline = time.monotonic() + GRACE
        while (workers := self._workers()) and time.monotonic() < deadline:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.started = []

    def _workers(self) -> list[int]:
        """The processes that have this federation's home, told by their environment; none where the system has no /proc."""
        mark, found = f"FLWR_HOME={self.environment['FLWR_HOME']}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def _start(self, name: str, program: str, *words: str) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "a") as log:
            command = [sys.executable, "-c", END_WITH_PARENT, str(programs() / program), *words]
            process = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def _wait_for(self, port: int, name: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.started[-1].poll() is not None:
                raise RuntimeError(f"the {name} ended:\n{self.logs()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the {name} does not answer on port {port} after {seconds} s:\n{self.logs()}")


def programs() -> Path:
    """The folder of Flower's programs: that of this Python."""
    return Path(sys.executable).parent


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)
