"""The note of a data worker about the picture it is at."""

from xnornet_port.picture_watch import WATCH_BYTES, PictureWatch
from xnornet_port.shared_arrays import allocate_memory, attach_memory


def test_what_one_side_writes_the_other_sees() -> None:
    descriptor, memory = allocate_memory(WATCH_BYTES)
    worker, main = PictureWatch(memory), PictureWatch(attach_memory(descriptor))
    assert main.look() == (0, b"")
    worker.begin(b"a long name \xff\n.jpg")
    assert main.look() == (1, b"a long name \xff\n.jpg")
    worker.begin(b"b")
    assert main.look() == (2, b"b")
    worker.begin(b"b")
    assert main.look() == (3, b"b")  # the same picture again is another note
    worker.end()
    assert main.look() == (4, b"")
    worker.begin(b"x" * 100_000)  # longer than any path
    assert main.look() == (5, b"x" * 65536)
