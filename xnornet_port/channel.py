"""Messages between the main process and a data worker: JSON, and now and then an open file."""

import json
import os
import socket
import struct
from typing import Any

__all__ = ["Channel"]

HEADER = struct.Struct("<I")  # length of the JSON text that follows


class Channel:
    """One end of a connection. A descriptor sent along arrives as a new one that the receiver closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    def pair(cls) -> tuple["Channel", socket.socket]:
        """A channel, and the socket for the other process to make its own of."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(near), far

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Raises OSError when the other end is gone."""
        text = json.dumps(message).encode()
        data = HEADER.pack(len(text)) + text
        if descriptor is not None:
            sent = socket.send_fds(self._socket, [data], [descriptor])
            data = data[sent:]
        self._socket.sendall(data)

    def receive(self) -> tuple[dict[str, Any], int | None]:
        """The next message, and the descriptor that came with it.

        Raises EOFError or OSError when the other end is gone.
        """
        first, descriptors, _, _ = socket.recv_fds(self._socket, HEADER.size, 1)
        descriptor = descriptors[0] if descriptors else None
        try:
            header = first + self._receive_exactly(HEADER.size - len(first)) if first else first
            if not header:
                raise EOFError
            message: dict[str, Any] = json.loads(self._receive_exactly(HEADER.unpack(header)[0]))
        except BaseException:
            if descriptor is not None:
                os.close(descriptor)
            raise
        return message, descriptor

    def _receive_exactly(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()
