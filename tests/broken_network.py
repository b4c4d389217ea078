"""A TCP proxy in front of a server on loopback: it cuts, delays and changes what passes."""

import contextlib
import socket
import threading
import time


class BrokenNetwork:
    """A proxy whose faults a test sets; without any it passes everything on."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.mend()
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self) -> None:
        """Removes all faults."""
        self.cut_after_bytes: int | None = None
        """Bytes of a connection, both ways together, after which it is closed."""
        self.delay_seconds = 0.0
        """Wait before each piece of at most `piece_bytes`."""
        self.piece_bytes = 2**16
        self.flips = 0
        """Bytes of the server's answers that are still to be changed: one in each `flip_after_bytes`."""
        self.flip_after_bytes = 100_000
        self.upload_flips = 0
        """The same for what clients send."""
        self.is_down = False
        """Whether every connection is closed at once."""
        self.received_bytes = 0
        """Bytes of the server's answers."""
        self._passed = {"down": 0, "up": 0}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target_port))
            left = [self.cut_after_bytes]
            for source, sink, way in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._pass_on, args=(source, sink, way, left), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, way: str, left: list[int | None]) -> None:
        try:
            while piece := source.recv(self.piece_bytes):
                if self.is_down:
                    break
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if left[0] is not None:
                    piece = piece[: max(0, left[0])]
                    left[0] -= len(piece)
                sink.sendall(self._change(piece, way))
                if left[0] is not None and left[0] <= 0:
                    break
        except OSError:
            return  # the other direction has closed both
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _change(self, piece: bytes, way: str) -> bytes:
        if way == "down":
            self.received_bytes += len(piece)
        self._passed[way] += len(piece)
        left = self.flips if way == "down" else self.upload_flips
        # The middle of a large piece is content; a changed header would only break the connection.
        if not left or self._passed[way] < self.flip_after_bytes or len(piece) < 4096:
            return piece
        self._passed[way] = 0
        if way == "down":
            self.flips -= 1
        else:
            self.upload_flips -= 1
        middle = len(piece) // 2
        return piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]
