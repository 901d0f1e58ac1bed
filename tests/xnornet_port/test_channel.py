"""Messages and open files over a socket."""

import os
import socket

import pytest

from xnornet_port.channel import Channel


def test_messages_arrive_whole_and_in_order() -> None:
    near, far_socket = Channel.pair()
    far = Channel(far_socket)
    messages = [{"a": 1}, {}, {"text": "caf\udce9 \n" * 3000}, {"list": [1, [2, None]]}]
    for message in messages:
        near.send(message)
    assert [far.receive() for _ in messages] == [(message, None) for message in messages]
    near.close()
    far.close()


def test_an_open_file_travels_with_its_message() -> None:
    near, far_socket = Channel.pair()
    far = Channel(far_socket)
    reading, writing = os.pipe()
    near.send({"number": 1})
    near.send({"number": 2}, writing)
    os.close(writing)
    assert far.receive() == ({"number": 1}, None)
    message, descriptor = far.receive()
    assert message == {"number": 2}
    assert descriptor is not None
    os.write(descriptor, b"through")
    os.close(descriptor)
    assert os.read(reading, 10) == b"through"
    os.close(reading)
    near.close()
    far.close()


@pytest.mark.parametrize("sent", [b"", b"\x05", b"\x05\x00\x00\x00", b"\x05\x00\x00\x00{}"])
def test_an_end_is_an_end_wherever_it_comes(sent: bytes) -> None:
    near, far = Channel.pair()
    far.sendall(sent)
    far.close()
    with pytest.raises(EOFError):
        near.receive()
    near.close()


def test_sending_to_nobody() -> None:
    near, far = Channel.pair()
    far.close()
    with pytest.raises(OSError, match="Broken pipe"):
        near.send({"a": 1})
    near.close()
    with pytest.raises(OSError, match=r"Bad file descriptor"):
        near.receive()


def test_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    near, far = Channel.pair()
    assert isinstance(far, socket.socket)
    near.close()
    far.close()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
