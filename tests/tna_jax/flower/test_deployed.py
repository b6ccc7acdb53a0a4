"""Real Flower on this machine: a SuperLink, SuperNodes, a process for each message. Everything started is ended."""

import json
import os
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs Flower, which has an environment of its own: make test-flower")

from examples.flower import certificates
from examples.flower.local import Federation
from tna_jax.federated import packing, simulation
from tna_jax.federated.partition import padded
from tna_jax.io import safetensors
from tna_jax.programs.federate.flower_settings import build, options

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "flower"
FAULTY = Path(__file__).resolve().parent / "app"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def settings(app: Path, **changed) -> dict:
    own = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    return {**own, **{name.replace("_", "-"): value for name, value in changed.items()}}


def environment(tmp_path) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    return {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache"), "XLA_FLAGS": flags}


def left_running(folder: Path) -> list[str]:
    """Command lines of processes whose Flower home is in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"FLWR_HOME={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def simulated(config: dict):
    """The server after the same rounds, simulated."""
    task = build(config)
    own = options(config)
    rows = [task.examples(k) for k in range(own.clients)]
    sizes = np.cumsum([0, *(len(labels) for _, labels in rows)])
    clients = padded([np.arange(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)])
    images, labels = (np.concatenate([row[i] for row in rows]) for i in range(2))
    server = task.init_server()
    client_states = simulation.init_client_states(task.federation, server)
    for number in range(task.rounds):
        server, _ = simulation.simulate_round(
            task.federation, task.schedule, task.root, number, server, client_states, clients, images, labels, task.learning_rate(number),
        )  # fmt: skip
    return server


def model(out: Path, form):
    return safetensors.load(out / "model.safetensors", like=form)


def test_two_supernodes_train_the_simulated_model(tmp_path):
    out = tmp_path / "out"
    nodes = [{"partition-id": k, "state-dir": str(tmp_path / f"state{k}")} for k in range(2)]
    changed = {"algorithm": "scaffold", "out": str(out), "width": 32, "round-timeout": 120}
    with Federation(tmp_path / "flower", nodes, environment=environment(tmp_path)) as federation:
        text = federation.run(EXAMPLE, changed)
        assert "federation finished after 3 rounds" in text, federation.logs()
        assert all(
            text.count(line) == 1 for line in ("round 1: 2 of 2 replies accepted", "federation finished after")
        ), text
    assert not left_running(tmp_path)
    config = settings(EXAMPLE, **{name.replace("-", "_"): value for name, value in changed.items()})
    task, server = build(config), simulated(config)
    got = model(out, task.model_shapes())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), got["params"], server.params)
    start = task.init_server().params
    assert not all(
        np.allclose(a, b, atol=1e-3) for a, b in zip(*map(jax.tree.leaves, (got["params"], start)), strict=True)
    )
    reports = json.loads((out / "federation.json").read_text())["rounds"]
    assert [report["taken"] for report in reports] == [[0, 1]] * 3
    assert [set(report["sent"].values()) for report in reports] == [{"whole"}, {"live"}, {"live"}]
    whole = packing.payload_bytes(task.model_shapes())
    # each message starts a new process, yet only the first round compiles; trifles are kept when they happened to take long
    compiled = {file: file.name.split("-")[0] for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    assert {"jit_run_round", "jit_sums", "jit__stepped"} <= set(compiled.values())
    late = {name for file, name in compiled.items() if file.stat().st_mtime > reports[0]["ended"]}
    assert not late & {"jit_run_round", "jit_sums", "jit__stepped"}
    for report in reports:  # SCAFFOLD sends two vectors
        assert all(n / whole == pytest.approx(1.2, abs=0.05) for n in report["bytes_up"].values())


def test_over_tls_with_authenticated_nodes_bad_replies_are_named_and_strangers_stay_out(tmp_path):
    out, folder = tmp_path / "out", tmp_path / "flower"
    faults = ["", "", "nan", "shape", "die"]
    nodes = [
        {"partition-id": k, "state-dir": str(tmp_path / f"state{k}"), "fault": fault} for k, fault in enumerate(faults)
    ]
    made = certificates.make(tmp_path / "certificates", len(nodes))
    certificates.make_node_key(made.folder, 5)  # never registered
    changed = {"clients": 5, "out": str(out), "width": 32, "min-replies": 2, "rounds": 2, "round-timeout": 120}
    with Federation(folder, nodes, certificates=made, environment=environment(tmp_path)) as federation:
        federation.nodes.append({"partition-id": 0})
        federation.start_node(5)
        text = federation.run(FAULTY, changed)
        assert "federation finished after 2 rounds" in text, federation.logs()
        joined = [i for i in range(6) if "SuperNode ID" in (folder / f"node{i}.log").read_text()]
        assert joined == [0, 1, 2, 3, 4], federation.logs()
    assert not left_running(tmp_path)
    reports = json.loads((out / "federation.json").read_text())["rounds"]
    assert len(reports) == 2
    for report in reports:
        assert report["taken"] == [0, 1] and report["stepped"]
        refused = {client: "; ".join(why) for client, why in report["refused"].items()}
        assert set(refused) == {"2", "3", "4"}
        assert "not finite" in refused["2"] and "of shape" in refused["3"]
        assert "did not reply" in refused["4"] or "it failed" in refused["4"]  # Flower notices the crash after a minute
        for client in (2, 3, 4):
            assert f"round {report['round']}: client {client} is refused" in text
    form = build(settings(FAULTY, clients=5, width=32)).model_shapes()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model(out, form)))
    assert reports[-1]["test_loss"] < reports[0]["test_loss"]


def failing(folder, processes):
    with Federation(folder, [{"partition-id": 0}]) as federation:
        processes += federation.started
        assert left_running(folder)
        raise ZeroDivisionError


def test_what_was_started_ends_when_the_block_fails(tmp_path):
    processes = []
    with pytest.raises(ZeroDivisionError):
        failing(tmp_path / "flower", processes)
    assert len(processes) == 2 and all(process.poll() is not None for process in processes)
    assert not left_running(tmp_path)
    nothing = certificates.Certificates(tmp_path)
    with pytest.raises(RuntimeError, match="the superlink ended"):
        Federation(tmp_path / "again", [], certificates=nothing).__enter__()
    assert not left_running(tmp_path)
