"""A relay that counts bytes: nodes connect to it instead of to the SuperLink, and it passes on what they say."""

import contextlib
import socket
import threading


class Relay:
    """Counts what goes up (to the SuperLink) and down, TCP payload in bytes, from the start on. Ends with the block."""

    def __init__(self, to: int):
        """Listens on a free port of the loopback interface, `port`, for connections to pass on to the port `to`."""
        self.to, self.up, self.down = to, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        self.lock = threading.Lock()

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        for connection in [self.listener, *self.open]:
            with contextlib.suppress(OSError):
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                node, _ = self.listener.accept()
                link = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                return
            self.open += [node, link]
            for source, target, name in ((node, link, "up"), (link, node, "down")):
                threading.Thread(target=self._pass, args=(source, target, name), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                with self.lock:
                    setattr(self, name, getattr(self, name) + len(data))
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
