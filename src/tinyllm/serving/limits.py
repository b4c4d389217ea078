"""Bounds on what one client may cost the server, in one place. Bounds on parameters of a request are in `schemas`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes and deadlines of connections and requests."""

    body_bytes: int = 2**20
    """Largest body of a request."""
    head_bytes: int = 2**15
    """Largest head of a request: its first line and headers."""
    num_headers: int = 100
    """Most headers of a request."""
    json_depth: int = 32
    """Deepest nesting of arrays and objects in a body."""
    json_collections: int = 2**16
    """Most arrays and objects in a body."""
    num_connections: int = 512
    """Most open connections. At the limit, one that is idle or sends its request is closed, the longest idle first."""
    request_seconds: float = 20.0
    """Time for the head and the body of a request together."""
    write_seconds: float = 25.0
    """Time for a client to read what is ready for it."""
    idle_seconds: int = 30
    """Time that a connection stays open without a request."""
    send_buffer_bytes: int = 2**17
    """The system's buffer of a connection for bytes that the client has not read."""
    unread_bytes: int = 2**18
    """Unread part of a stream at which it waits for its client."""
    drain_seconds: float = 25.0
    """Time for running texts to end after a signal."""
    closing_seconds: int = 3
    """Time for the last bytes to leave after that."""
