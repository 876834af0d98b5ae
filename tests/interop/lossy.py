"""A network that fails once: what goes between a client and the broker passes here."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class LossyLine:
    """Passes connections on to a port, and cuts the first one when `limit` bytes of the broker's have passed."""

    def __init__(self, port: int, limit: int) -> None:
        self.connections = 0
        self._target = port
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                broker = socket.create_connection(("127.0.0.1", self._target))
                limit = self._limit if self.connections == 1 else None
                threading.Thread(target=self._pass, args=(client, broker, None), daemon=True).start()
                threading.Thread(target=self._pass, args=(broker, client, limit), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16 * 1024):
                passed += len(data)
                if limit is not None and passed > limit:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def lossy_line(port: int, limit: int) -> Iterator[LossyLine]:
    line = LossyLine(port, limit)
    try:
        yield line
    finally:
        line.close()
