"""Data workers: the same batches as their streams give in one process, and no worker left behind."""

import io
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lua_compat import Generator
from xnornet_port import donkey_process, donkeys
from xnornet_port.batches import Batch, BatchRequest, Loader
from xnornet_port.dataset import scan_folder
from xnornet_port.donkeys import DonkeyPool
from xnornet_port.errors import XnorNetError
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing

SEED = 2
STATISTICS = ChannelStatistics((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
REQUESTS = [BatchRequest("train", 3)] * 5
TEST_REQUESTS = [BatchRequest("test", 4, first) for first in (1, 5, 9)]


@pytest.fixture(scope="module")
def loader() -> Loader:
    """Small crops of the golden pictures, one of which is unreadable."""
    data = Path(__file__).parent.parent / "golden" / "imagenet"
    train = scan_folder(str(data / "train"))
    test = scan_folder(str(data / "val"), force_classes=train.classes)
    return Loader(train, test, Preprocessing(64, 48, 0.1, STATISTICS), Generator(SEED))


@pytest.fixture
def pool(loader: Loader) -> Iterator[DonkeyPool]:
    with DonkeyPool(loader, SEED, n_donkeys=2) as pool:
        yield pool


def made_here(loader: Loader, *passes: list[BatchRequest], n_donkeys: int = 2) -> list[Batch]:
    """What the workers should give: batch k of a pass from stream manualSeed + (k mod n) + 1 (ledger row 17)."""
    streams = [Generator(SEED + number) for number in range(1, n_donkeys + 1)]
    batches = []
    for requests in passes:
        for k, request in enumerate(requests):
            own = Loader(loader.train, loader.test, loader.settings, streams[k % n_donkeys], refused=loader.refused)
            inputs = np.empty(own.input_shape(request), dtype=np.float32)
            labels = np.empty(request.size, dtype=np.int64)
            faults = own.fill(request, inputs, labels)
            batches.append(Batch(inputs, labels, faults, 0.0, own.stream.state))
    return batches


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.inputs, other.inputs)
        assert one.faults == other.faults
        assert one.stream == other.stream


@pytest.mark.parametrize("n_donkeys", [1, 2, 3])
def test_batches_are_those_of_the_workers_streams(loader: Loader, n_donkeys: int) -> None:
    """Through training, testing and training again, the last pass not a multiple of the workers."""
    passes = [REQUESTS, TEST_REQUESTS, REQUESTS]
    with DonkeyPool(loader, SEED, n_donkeys) as pool:
        found = [batch for requests in passes for batch in pool.batches(requests)]
        assert pool.streams == [
            next(batch.stream for batch in reversed(made_here_from(loader, passes, n_donkeys, worker)))
            for worker in range(n_donkeys)
        ]
    assert_same(found, made_here(loader, *passes, n_donkeys=n_donkeys))


def made_here_from(loader: Loader, passes: list[list[BatchRequest]], n_donkeys: int, worker: int) -> list[Batch]:
    owners = [k % n_donkeys for requests in passes for k in range(len(requests))]
    batches = made_here(loader, *passes, n_donkeys=n_donkeys)
    return [batch for batch, owner in zip(batches, owners, strict=True) if owner == worker]


def test_batches_stay_whole_after_the_pool_is_closed(loader: Loader) -> None:
    """Their memory is their own, and may be written to (torch.from_numpy wants that)."""
    with DonkeyPool(loader, SEED, 2) as pool:
        batches = list(pool.batches(REQUESTS))
    assert_same(batches, made_here(loader, REQUESTS))
    assert batches[0].inputs.flags.writeable
    assert batches[0].inputs.flags.c_contiguous
    assert (batches[0].inputs.dtype, batches[0].labels.dtype) == (np.float32, np.int64)


def test_memory_is_used_again_only_when_nobody_refers_to_it(loader: Loader, pool: DonkeyPool) -> None:
    requests = [BatchRequest("train", size) for size in (2, 3, 1, 3)] * 5  # slots must grow and may be too large
    expected = made_here(loader, requests)
    kept = []
    for k, batch in enumerate(pool.batches(requests)):
        np.testing.assert_array_equal(batch.inputs, expected[k].inputs)
        if k % 7 == 0:
            kept.append((k, batch.inputs[-1:]))  # a view of a part
    del batch
    for k, view in kept:
        np.testing.assert_array_equal(view, expected[k].inputs[-1:])
    # 3 views kept, 2 asked for ahead of each of the 2 workers, 1 in the loop's hands
    assert sum(len(donkey._slots) for donkey in pool._donkeys) <= len(kept) + 2 * 2 + 2
    kept.clear()
    del view
    assert all(len(donkey.free) == len(donkey._slots) for donkey in pool._donkeys)


def test_a_pool_that_closes_replaces_no_worker(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that fetches a batch ahead sees its worker go, and would start another one."""
    stop = donkey_process.DonkeyProcess.stop
    left: list[int] = []

    def stopping(donkey: donkey_process.DonkeyProcess) -> None:
        left.append(len(pool._donkeys))
        stop(donkey)

    with DonkeyPool(loader, SEED, 2) as pool:
        monkeypatch.setattr(donkey_process.DonkeyProcess, "stop", stopping)
    assert left == [0, 0]


def test_unreadable_pictures_are_reported(loader: Loader, pool: DonkeyPool) -> None:
    unreadable = [fault for batch in pool.batches([BatchRequest("train", 30)] * 4) for fault in batch.faults]
    assert unreadable  # one picture of 50 is: 120 draws miss it with probability 0.98^120 = 9 %, and with seed 2 do not
    assert {os.path.basename(fault.path) for fault in unreadable} == {"n07753592_9.JPEG"}


def test_a_pass_left_early_changes_nothing(loader: Loader, pool: DonkeyPool) -> None:
    """What was made ahead is dropped, and the streams go on from the batches that were handed out."""
    left = pool.batches(REQUESTS)
    found = [next(left), next(left), next(left)]
    found += list(pool.batches(REQUESTS))
    assert_same(found, made_here(loader, REQUESTS[:3], REQUESTS))
    with pytest.raises(RuntimeError, match="this pass cannot go on: a later one has begun"):
        next(left)


def test_streams_put_back(loader: Loader, pool: DonkeyPool) -> None:
    """Resuming in the middle of a pass: the same batches come again."""
    first = list(pool.batches(REQUESTS))
    going_on = pool.batches(REQUESTS)
    next(going_on)
    states = pool.streams
    expected = list(going_on)
    list(pool.batches(TEST_REQUESTS))
    pool.streams = states
    assert_same(list(pool.batches(REQUESTS, first=1)), expected)
    pool.streams = [Generator(SEED + 1).state, Generator(SEED + 2).state]
    assert_same(list(pool.batches(REQUESTS)), first)
    with pytest.raises(XnorNetError, match="3 random streams for 2 data workers"):
        pool.streams = [b"", b"", b""]


def slow_picture() -> bytes:
    """A progressive JPEG of 2.6 MB whose last scan comes 4000 times: half a minute of decoding at least."""
    file = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * 4000 + b"\xff\xd9"


@pytest.fixture
def slow(loader: Loader, tmp_path: Path) -> tuple[Loader, bytes]:
    """The same pictures but for test picture 6, in which a worker hangs; and its path."""
    data = tmp_path / "data"
    shutil.copytree(Path(loader.test.folder).parent, data)
    train = scan_folder(str(data / "train"))
    test = scan_folder(str(data / "val"), force_classes=train.classes)
    path = test.path(6)
    Path(os.fsdecode(path)).write_bytes(slow_picture())
    return Loader(train, test, loader.settings, Generator(SEED)), path


def test_a_worker_that_hangs_in_a_picture_is_replaced(
    slow: tuple[Loader, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the picture could not be read: the mean colour, no draw for its scale, all other batches as they were."""
    loader, path = slow
    passes = [TEST_REQUESTS, REQUESTS, TEST_REQUESTS]
    said: list[str] = []

    def wait(channels: list[Any], *_: object) -> tuple[list[Any], ...]:
        """Time passes in that picture only: on a busy machine a worker may take more than a second for any other."""
        (watch,) = (donkey._watch for donkey in pool._donkeys if donkey.channel is channels[0])
        while True:
            ready = select.select(channels, [], [], 0.02)
            if ready[0] or watch.look()[1] == path:
                return ready

    monkeypatch.setattr(donkey_process, "select", SimpleNamespace(select=wait))
    with DonkeyPool(loader, SEED, 2, picture_seconds=1, say=said.append) as pool:
        process = pool._donkeys[1].process
        found = [batch for requests in passes for batch in pool.batches(requests)]
    assert process.returncode == -signal.SIGKILL
    reason = f"{os.fsdecode(path)}: not read after 1 s"
    loader.refused[path] = reason
    assert_same(found, made_here(loader, *passes))
    assert [fault for batch in found[:3] for fault in batch.faults] == [(os.fsdecode(path), reason)]
    assert said == [
        f"data worker 2 (process {process.pid}) hung in {os.fsdecode(path)}, for more than 1 s, and was killed; "
        "a new one takes its place"
    ]


def test_a_picture_that_kills_two_workers_is_not_tried_again(slow: tuple[Loader, bytes]) -> None:
    loader, path = slow
    said: list[str] = []
    killed: list[int] = []
    with DonkeyPool(loader, SEED, 2, picture_seconds=600, say=said.append) as pool:

        def kill_at_the_picture() -> None:
            while len(killed) < 2:
                donkey = pool._donkeys[1]
                note = donkey._watch.look() if donkey._watch else None
                if donkey.process.pid not in killed and note and note[1] == path:
                    killed.append(donkey.process.pid)
                    os.kill(donkey.process.pid, signal.SIGSEGV)
                time.sleep(0.01)

        killer = threading.Thread(target=kill_at_the_picture)
        killer.start()
        found = list(pool.batches(TEST_REQUESTS))
        killer.join()
    loader.refused[path] = f"{os.fsdecode(path)}: 2 data workers were killed while they read it"
    assert_same(found, made_here(loader, TEST_REQUESTS))
    assert [fault.path for batch in found for fault in batch.faults] == [os.fsdecode(path)]
    assert said == [f"data worker 2 (process {pid}) was killed by SIGSEGV; a new one takes its place" for pid in killed]


def test_a_killed_worker_is_replaced(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed for memory, say: the new one makes the batches the old one would have made."""
    monkeypatch.setattr(donkeys, "DEATHS_IN_A_PICTURE", 99)  # of 50 pictures two may be hit in the same by chance
    said: list[str] = []
    passes = [REQUESTS * 4, TEST_REQUESTS, REQUESTS]
    last = [BatchRequest("train", 3)] * 2  # shows that a worker is gone that had made all its batches before
    found = []
    with DonkeyPool(loader, SEED, 2, say=said.append) as pool:
        for requests in (*passes, last):
            for k, batch in enumerate(pool.batches(requests)):
                found.append(batch)
                if k % 4 == 1 and requests is not last:
                    os.kill(pool._donkeys[k // 4 % 2].process.pid, signal.SIGKILL)
    assert_same(found, made_here(loader, *passes, last))
    assert len(said) == 7  # batches 1, 5, 9, 13 and 17 of the first pass, 1 of the second; 1 of the third
    assert all("was killed by SIGKILL (no memory left? Try a smaller -nDonkeys" in line for line in said)


def test_workers_that_are_killed_again_and_again_end_the_run(
    loader: Loader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(donkey_process.sys, "executable", str(script))
    with pytest.raises(XnorNetError, match=r"data worker 1 \(process \d+\) was killed by SIGKILL"):
        list(DonkeyPool(loader, SEED, 1).batches(REQUESTS))


def test_a_worker_that_ends_by_itself_is_named(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(donkey_process.sys, "executable", "/bin/false")
    with pytest.raises(XnorNetError, match=r"data worker 1 \(process \d+\) ended with exit code 1"):
        list(DonkeyPool(loader, SEED, 1).batches(REQUESTS))
    monkeypatch.setattr(donkey_process.sys, "executable", "/nowhere/python")
    with pytest.raises(XnorNetError, match="data worker 1 cannot be started"):
        DonkeyPool(loader, SEED, 1)


def test_an_error_in_a_worker_comes_as_one_line(loader: Loader) -> None:
    """A class without pictures to draw is no picture's fault: the worker says so, and the run ends."""
    train = loader.train
    broken = Loader(
        type(train)(
            train.folder,
            train.classes,
            train.image_path,
            train.image_class,
            train.class_list,
            sample_list=tuple(numbers[:0] for numbers in train.sample_list),
        ),
        loader.test,
        loader.settings,
        loader.stream,
    )
    with (
        DonkeyPool(broken, SEED, 1) as pool,
        pytest.raises(XnorNetError, match=r"^data worker 1: .*train: class '\w+' has no picture to train with"),
    ):
        list(pool.batches(REQUESTS))


def test_too_large_a_batch(loader: Loader, pool: DonkeyPool) -> None:
    """2**47 pictures of 27 kB: more addresses than a process has."""
    with pytest.raises(XnorNetError, match=r"data worker 1: no memory for a batch of 140737488355328 pictures"):
        list(pool.batches([BatchRequest("train", 2**47)]))


def is_running(pid: int) -> bool:
    """A process that has ended, and that nobody has asked after (a container's first process may not), is not."""
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # no /proc here, or gone meanwhile
        return not Path("/proc/self/status").exists()


def wait_until_ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_running, pids))


def test_closing_ends_busy_workers_at_once(slow: tuple[Loader, bytes]) -> None:
    loader, path = slow
    pool = DonkeyPool(loader, SEED, 2)
    next(pool.batches(TEST_REQUESTS))
    pids = [donkey.process.pid for donkey in pool._donkeys]
    busy = pool._donkeys[1]._watch
    assert busy is not None
    while busy.look()[1] != path:
        time.sleep(0.01)
    pool.close()
    assert busy.look()[1] == path  # its picture takes it half a minute: it was not waited for
    assert not any(map(is_running, pids))
    pool.close()  # twice does no harm
    with pytest.raises(RuntimeError, match="have been closed"):
        next(pool.batches(REQUESTS))


PROGRAM = """
import sys, time
sys.path[:] = {path!r}
from lua_compat import Generator
from xnornet_port.batches import BatchRequest, Loader
from xnornet_port.dataset import scan_folder
from xnornet_port.donkeys import DonkeyPool
from xnornet_port.preprocessing import ChannelStatistics, Preprocessing
train = scan_folder({train!r})
settings = Preprocessing(64, 48, 0.0, ChannelStatistics((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))
with DonkeyPool(Loader(train, train, settings, Generator(1)), 1, 2) as pool:
    for batch in pool.batches([BatchRequest("train", 2)] * 10 ** 6):
        print(*[donkey.process.pid for donkey in pool._donkeys], "torch" in sys.modules, flush=True)
        time.sleep(600)  # the signal comes here: Python would pass over its exception in a weak reference's callback
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_main_process(loader: Loader, sign: signal.Signals) -> None:
    """However it ends; and Ctrl-C reaches it alone: no traceback of a worker in between."""
    program = PROGRAM.format(path=[str(Path(__file__).parent.parent.parent), *sys.path], train=loader.train.folder)
    main = subprocess.Popen(
        [sys.executable, "-"],  # from standard input: there is no file a worker could import again
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert main.stdin
    assert main.stdout
    main.stdin.write(program)
    main.stdin.close()
    *pids, torch_imported = main.stdout.readline().split()
    assert torch_imported == "False"
    if sign == signal.SIGKILL:
        main.kill()
    else:
        os.killpg(main.pid, sign)  # as a terminal does
    _, errors = main.stdout.read(), main.stderr.read() if main.stderr else ""
    main.wait()
    main.stdout.close()
    if main.stderr:
        main.stderr.close()
    assert wait_until_ended([int(pid) for pid in pids])
    assert "donkey.py" not in errors
    assert ("KeyboardInterrupt" in errors) == (sign == signal.SIGINT)
