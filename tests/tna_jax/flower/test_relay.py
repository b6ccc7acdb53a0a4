"""The relay passes every byte on and counts it; the addresses and words of a local federation."""

import socket
import threading

from benchmarks.relay import Relay
from examples.flower.local import Federation


def serve(listener: socket.socket) -> None:
    """Answers the first connection's bytes with twice as many, after it has said all it has to say."""
    connection, _ = listener.accept()
    said = b""
    while data := connection.recv(1 << 16):
        said += data
    connection.sendall(said * 2)
    connection.close()


def test_a_relay_counts_both_directions_and_changes_nothing():
    message = bytes(range(256)) * 5000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with Relay(listener.getsockname()[1]) as relay, socket.create_connection(("127.0.0.1", relay.port)) as node:
            node.sendall(message)
            node.shutdown(socket.SHUT_WR)
            answer = b""
            while data := node.recv(1 << 16):
                answer += data
            assert answer == message * 2
            assert (relay.up, relay.down) == (len(message), 2 * len(message))


def test_a_local_federation_is_configured_without_the_network(tmp_path):
    federation = Federation(tmp_path, [{"partition-id": 0, "state-dir": "a b"}], port=8123, environment={"X": "1"})
    assert federation.environment["FLWR_HOME"] == str(tmp_path / "home") and federation.environment["X"] == "1"
    assert federation.environment["FLWR_TELEMETRY_ENABLED"] == "0" and federation.environment["UV_OFFLINE"] == "1"
    assert "--disable-runtime-dependency-installation" in federation._superlink_words()
    assert federation.started == [] and not list(tmp_path.iterdir())
