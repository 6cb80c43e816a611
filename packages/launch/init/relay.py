"""Moves bytes between two connected sockets until both directions have ended."""

import os
import socket
import threading

_CHUNK_BYTES = 1 << 20
_SOCKET_BUFFER_BYTES = 4 << 20


def join(left, right):
    """Returns when both directions are over. A half-closed side is passed on as such: HTTP clients rely on it."""
    for side in (left, right):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        if side.family != socket.AF_UNIX:
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_pump, args=(right, left), daemon=True)
    back.start()
    _pump(left, right)
    back.join()


def _pump(source, sink):
    try:
        _splice(source, sink)
    except OSError:
        # One direction broke: the other must not wait for a peer that will not come back.
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
    else:
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def _splice(source, sink):
    """Through a pipe in the kernel: no byte is copied into this process."""
    read, write = os.pipe()
    try:
        while True:
            count = os.splice(source.fileno(), write, _CHUNK_BYTES)
            if count == 0:
                return
            while count:
                count -= os.splice(read, sink.fileno(), count)
    finally:
        os.close(read)
        os.close(write)
