"""Bytes on the wire in a round of FedAvg and of FedPFN at ratio 0.4: Flower on this machine, two SuperNodes, an MLP of 1.1 million
parameters on digits. Goal: uploads of FedPFN are 60 % of FedAvg's plus under 1 %.

Two counters: a relay between nodes and SuperLink counts what each direction carries (TCP payload: what would cross a network
between machines); and the counter of the loopback interface, alone in a network namespace, counts everything, each byte as often
as Flower hands it on between its own processes. A round's bytes are those between the server's sampling and its step; the first
round, in which clients get the whole model, is told apart. The payload is what this library hands to Flower: exact.

Needs Flower's environment (make test-flower makes it) and root for the namespace; without root the interface's counter is left
out. About four minutes on an idle machine: `.venv-flower/bin/python -m benchmarks.flower_bytes`.
"""

import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.relay import Relay
from benchmarks.timing import report
from examples.flower.local import Federation, free_port
from tna_jax.federated import packing

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "examples" / "flower"
ROUNDS, CLIENTS = 6, 2
SETTINGS: dict[str, Any] = {
    "depth": 2,
    "width": 1024,
    "rounds": ROUNDS,
    "clients": CLIENTS,
    "train-examples": 200,
    "ratio": 0.4,
}
INSIDE = "TNA_BYTES_INSIDE"
"""Set in the process that has a network namespace of its own."""


class Samples:
    """The counters over time."""

    def __init__(self, relay: Relay):
        self.relay, self.rows, self.going = relay, [], True
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self.going:
            self.rows.append((time.time(), self.relay.up, self.relay.down, loopback()))
            time.sleep(0.02)

    def between(self, began: float, ended: float) -> dict[str, int]:
        """What the counters gained in that time."""
        first = max((row for row in self.rows if row[0] <= began), key=lambda row: row[0])
        last = min((row for row in self.rows if row[0] >= ended), key=lambda row: row[0])
        return dict(
            zip(("up", "down", "loopback"), (b - a for a, b in zip(first[1:], last[1:], strict=True)), strict=True)
        )


def loopback() -> int:
    """Bytes that the loopback interface has received."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def measure(folder: Path, anchors: str) -> list[dict[str, Any]]:
    """The bytes of each round."""
    nodes = [{"partition-id": k, "state-dir": str(folder / f"state{k}")} for k in range(CLIENTS)]
    environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    port = free_port()
    with (
        Relay(port) as relay,
        Federation(folder / "flower", nodes, port=port, through=relay.port, environment=environment) as federation,
    ):
        samples = Samples(relay)
        text = federation.run(APP, {**SETTINGS, "anchors": anchors, "out": str(folder / "out"), "round-timeout": 300})
        time.sleep(0.1)
        samples.going = False
        if f"federation finished after {ROUNDS} rounds" not in text:
            raise RuntimeError(f"{text}\n{federation.logs()}")
    rounds = json.loads((folder / "out" / "federation.json").read_text())["rounds"]
    return [
        {
            "sent": sorted(set(found["sent"].values())),
            "payload_up": sum(found["bytes_up"].values()),
            "payload_down": sum(found["bytes_down"].values()),
            **samples.between(found["began"], found["ended"]),
        }
        for found in rounds
    ]


def main() -> None:
    from tna_jax.programs.federate.flower_settings import build

    alone = os.environ.get(INSIDE) == "1"
    found = {}
    for anchors in ("none", "pfn"):
        with tempfile.TemporaryDirectory() as folder:
            found[anchors] = measure(Path(folder), anchors)
    names = ["payload_up", "payload_down", "up", "down", *(["loopback"] if alone else [])]
    medians = {
        a: {name: statistics.median(r[name] for r in rounds[1:]) for name in names} for a, rounds in found.items()
    }
    ratios = {name: medians["pfn"][name] / medians["none"][name] for name in names}
    form = build({"dataset": "digits", "model": "mlp", **SETTINGS}).model_shapes()
    report(
        "flower_bytes",
        {
            "flwr": importlib.metadata.version("flwr"),
            "parameters": packing.lengths(form["params"])["float32"],
            "model_bytes": packing.payload_bytes(form),
            "clients": CLIENTS,
            "ratio": SETTINGS["ratio"],
            "own_network_namespace": alone,
            "median_after_the_first_round": medians,
            "pfn_over_none": ratios,
            "upload_over_payload": {a: medians[a]["up"] / medians[a]["payload_up"] for a in medians},
            "rounds": found,
        },
    )


def in_own_namespace() -> None:
    """Starts this benchmark again where no other program uses the loopback interface, if that can be done."""
    inside = ["sh", "-c", 'ip link set lo up && exec "$0" "$@"', sys.executable, "-m", "benchmarks.flower_bytes"]
    possible = os.geteuid() == 0 and shutil.which("unshare") and shutil.which("ip")
    if possible and os.environ.get(INSIDE) is None:
        trial = subprocess.run(["unshare", "-n", "true"], capture_output=True)
        if not trial.returncode:
            sys.exit(subprocess.run(["unshare", "-n", *inside], env={**os.environ, INSIDE: "1"}).returncode)


if __name__ == "__main__":
    in_own_namespace()
    main()
