"""Server and clients without Flower: the deployed federation is the simulated one, and only live entries travel."""

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tests.tna_jax.flower.tasks import simulated, task
from tna_jax.federated import ALGORITHMS, SERVERS, Schedule, packing
from tna_jax.flower import client as flower_client
from tna_jax.flower import protocol
from tna_jax.flower.server import Coordinator
from tna_jax.flower.store import Store

CLIENTS = 3


def run(job, folder, rounds: int = 3, spoil=lambda number, client, answer: answer, **options):
    """All rounds; the coordinator, outcomes, servers, and the requests and answers of each round."""
    coordinator = Coordinator(job, **options)
    servers, outcomes, traffic = [coordinator.server], [], []
    for client in range(CLIENTS):
        assert coordinator.admit(flower_client.introduce(job, client)) == (client, [])
    for number in range(rounds):
        requests = {client: coordinator.request(client) for client in coordinator.sampled()}
        answers = {}
        for client, request in requests.items():
            answers[client] = spoil(number, client, flower_client.train(job, client, Store(folder, client), request))
        outcomes.append(coordinator.finish_round({k: a for k, a in answers.items() if a is not None}))
        servers.append(coordinator.server)
        traffic.append((requests, answers))
    return coordinator, outcomes, servers, traffic


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), a, b)


SLOW = [(name, "pfn", "mean") for name in ALGORITHMS if name != "fedavg"]
SLOW += [
    ("fedavg", "none", "mean"),
    ("fedavg", "pnu-rounds", "fedyogi"),
    ("fedavg", "pfn", "feddf"),
    ("fednova", "pnu", "fedavgm"),
]
CASES = [("fedavg", "pfn", "mean"), *slow(("scaffold", "pnu", "fedadam"), *SLOW)]


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "kind", "server"), CASES)
def test_the_exchanged_federation_is_the_simulated_one(tmp_path, algorithm, kind, server):
    parts = "dirichlet" if algorithm == "fedavg" else "iid"
    job = task(
        Schedule(kind), algorithm=ALGORITHMS[algorithm](), server=SERVERS[server](), momentum=0.9, partition=parts
    )
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic
        compare(job, tmp_path, parts)


def compare(job, tmp_path, parts):
    expected, rounds = simulated(job, kind=parts)
    _, outcomes, servers, _ = run(job, tmp_path)
    assert [outcome.accepted for outcome in outcomes] == [[0, 1, 2]] * 3
    assert not any(outcome.refused or outcome.remarks for outcome in outcomes)
    for ours, theirs in zip(servers, expected, strict=True):
        assert_close(ours.params, theirs.params)
        assert_close(ours.extra, theirs.extra)
    assert not np.allclose(jax.tree.leaves(servers[-1].params)[0], jax.tree.leaves(servers[-2].params)[0], atol=1e-4)
    for outcome, found in zip(outcomes, rounds, strict=True):
        assert_close(tuple(outcome.metrics), tuple(found.metrics))


def test_only_live_entries_travel_both_ways(tmp_path):
    job = task(Schedule("pfn", 0.4))
    _, _, servers, traffic = run(job, tmp_path)
    form = job.model_shapes()
    for number, (requests, answers) in enumerate(traffic):
        live = protocol.may_move(job, form["params"], number)
        before = protocol.may_move(job, form["params"], number - 1) if number else None
        for client in range(CLIENTS):
            sent = {name: len(vector) for name, vector in requests[client].arrays.items()}
            assert sent == {"model/float32": packing.lengths(form["params"], before)["float32"]}
            got = {name: len(vector) for name, vector in answers[client].arrays.items()}
            assert got == {"delta/float32": packing.lengths(form["params"], live)["float32"]}
            assert got["delta/float32"] / packing.lengths(form["params"])["float32"] == pytest.approx(0.6, abs=0.04)
            assert requests[client].config["model"] == ("whole" if number == 0 else "live")
    for number in range(3):  # anchors keep every bit through packing, averaging and unpacking
        live = protocol.may_move(job, form["params"], number)
        for m, a, b in zip(
            *map(jax.tree.leaves, (live, servers[number].params, servers[number + 1].params)), strict=True
        ):
            same = np.asarray(a).view(np.uint32) == np.asarray(b).view(np.uint32)
            assert same[~np.asarray(m)].all() and not same[np.asarray(m)].all()


def test_a_variate_travels_by_its_live_entries_too(tmp_path):
    job = task(Schedule("pfn", 0.4), algorithm=ALGORITHMS["scaffold"]())
    _, _, _, traffic = run(job, tmp_path, 2)
    requests, answers = traffic[1]
    live = packing.lengths(job.model_shapes()["params"], protocol.may_move(job, job.model_shapes()["params"], 1))[
        "float32"
    ]
    assert len(requests[0].arrays["message/float32"]) == live
    assert {name: len(vector) for name, vector in answers[0].arrays.items()} == {
        "delta/float32": live,
        "extra/float32": live,
    }


@pytest.mark.slow
def test_a_client_that_sat_out_a_round_gets_the_whole_model(tmp_path):
    job = task(Schedule("pfn"), participation=0.67)
    _, _, servers, traffic = run(job, tmp_path, 6)
    assert_close(servers[-1].params, simulated(job, 6)[0][-1].params)
    sampled = [set(requests) for requests, _ in traffic]
    hows = set()
    for number, (requests, _) in enumerate(traffic):
        for client, request in requests.items():
            how = "live" if number and client in sampled[number - 1] else "whole"
            assert request.config["model"] == how
            hows.add((how, number > 0))
    assert {("live", True), ("whole", True)} <= hows


@pytest.mark.parametrize("damage", ["gone", *slow("cut", "old", "other")])
def test_a_client_that_lost_its_state_says_so_and_is_whole_the_next_round(tmp_path, damage):
    job = task(Schedule("pfn"), algorithm=ALGORITHMS["scaffold"]())
    file = Store(tmp_path, 1).file
    kept = {}

    def spoil(number, client, answer):
        if client == 1 and number == 0:
            kept["old"] = file.read_bytes()
        if client == 1 and number == 1:
            if damage == "gone":
                file.unlink()
            elif damage == "cut":
                file.write_bytes(file.read_bytes()[:1000])
            elif damage == "old":
                file.write_bytes(kept["old"])
            else:  # bits of the model flip: only its digest can tell
                data = bytearray(file.read_bytes())
                data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
                file.write_bytes(bytes(data))
        return answer

    _, outcomes, servers, traffic = run(job, tmp_path, 4, spoil)
    assert outcomes[1].accepted == [0, 1, 2] and outcomes[2].accepted == [0, 2] and outcomes[3].accepted == [0, 1, 2]
    (words,) = outcomes[2].refused[1]
    assert words.startswith("it has lost its model") and "sent whole" in words
    assert traffic[2][1][1].arrays == {} and traffic[3][0][1].config["model"] == "whole"
    if damage in ("gone", "cut"):
        assert outcomes[3].remarks == {1: ["it had lost its memory (SCAFFOLD), which starts anew"]}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(servers[-1].params))


def test_a_round_whose_reply_was_not_taken_did_not_happen_for_the_memory(tmp_path):
    """SCAFFOLD's c_k moves with c: a reply that is lost on its way must not move c_k alone."""
    job = task(Schedule("pfn"), algorithm=ALGORITHMS["scaffold"](), clients=CLIENTS)
    _, outcomes, servers, _ = run(job, tmp_path, 3, lambda number, client, a: None if (number, client) == (1, 2) else a)
    assert [outcome.accepted for outcome in outcomes] == [[0, 1, 2], [0, 1], [0, 1, 2]]
    total = jax.tree.map(np.zeros_like, servers[-1].extra)
    for client in range(CLIENTS):
        held = Store(tmp_path, client).read(job, _name(tmp_path, client), _own(job))
        total = jax.tree.map(
            lambda a, b: a + np.asarray(b) / CLIENTS, total, held.client_states[max(held.client_states)].memory
        )
    assert_close(total, servers[-1].extra)  # c is the mean of the c_k


def _name(folder, client):
    from tna_jax.io import safetensors

    return safetensors.read(Store(folder, client).file)[1]["federation"]


def _own(job):
    from tna_jax.federated import init_client_state

    return init_client_state(job.federation, job.init_server())
