"""CIFAR's three distributions give the same pictures; damaged and hostile files are one line."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xnornet_port.cifar_files import read_cifar
from xnornet_port.errors import XnorNetError
from xnornet_port.pickled_values import pickled_value

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode leaves test folders off the path

import cifar_distributions as made

Write10 = Callable[[Path, list[made.Pictures], made.Pictures], Path]
TRAIN_10 = [made.pictures(seed, 10, 10) for seed in range(1, 6)]
TEST_10 = made.pictures(9, 20, 10)
TRAIN_100, TEST_100 = made.pictures(1, 200, 100), made.pictures(2, 100, 100)


@pytest.mark.parametrize(
    ("write", "kind"),
    [(made.python_10, "python"), (made.binary_10, "binary"), (made.batches_t7, "Torch7"), (made.two_t7, "Torch7")],
)
def test_cifar10(write: Write10, kind: str, tmp_path: Path) -> None:
    files = read_cifar(str(write(tmp_path, TRAIN_10, TEST_10)), "cifar10")
    assert files.kind == kind
    assert files.classes == tuple(name.decode() for name in made.TEN)
    np.testing.assert_array_equal(files.train.pixels, np.concatenate([p for p, _ in TRAIN_10]).reshape(50, 3, 32, 32))
    np.testing.assert_array_equal(files.test.pixels, TEST_10[0].reshape(20, 3, 32, 32))
    assert files.train.labels.tolist() == list(range(1, 11)) * 5
    assert files.test.labels.tolist() == list(range(1, 11)) * 2


def fine_t7(folder: Path, train: made.Pictures, test: made.Pictures) -> Path:
    return made.one_t7(folder, "cifar100", train, test)


@pytest.mark.parametrize("write", [made.python_100, made.binary_100, fine_t7])
def test_cifar100_by_fine_labels(write: Callable[[Path, made.Pictures, made.Pictures], Path], tmp_path: Path) -> None:
    files = read_cifar(str(write(tmp_path, TRAIN_100, TEST_100)), "cifar100")
    assert files.classes[41] == ("class_42" if write is fine_t7 else "fine_41")
    np.testing.assert_array_equal(files.train.pixels.reshape(200, 3072), TRAIN_100[0])
    assert files.train.labels.tolist() == list(range(1, 101)) * 2
    assert files.test.labels.tolist() == list(range(1, 101))


def test_the_folder_itself_is_found_as_well(tmp_path: Path) -> None:
    made.binary_10(tmp_path, TRAIN_10, TEST_10)
    assert len(read_cifar(str(tmp_path / "cifar-10-batches-bin"), "cifar10").test.labels) == 20


def test_one_file_of_both_parts(tmp_path: Path) -> None:
    made.one_t7(tmp_path, "cifar10", TRAIN_10[0], TEST_10)
    assert read_cifar(str(tmp_path), "cifar10").train.labels.tolist() == list(range(1, 11))


# ---- what is wrong ----


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(XnorNetError, match=r"no cifar10 in it \(-data; looked for one of the files data_batch_1,"):
        read_cifar(str(tmp_path), "cifar10")
    (tmp_path / "cifar-100-python.tar.gz").touch()
    with pytest.raises(XnorNetError, match=r"no cifar100 in it .*; unpack cifar-100-python\.tar\.gz there"):
        read_cifar(str(tmp_path), "cifar100")


PY, BIN = "cifar-10-batches-py/", "cifar-10-batches-bin/"


@pytest.mark.parametrize(
    ("write", "file", "change", "message"),
    [
        (made.python_10, PY + "data_batch_3", None, "cannot be read"),
        (made.python_10, PY + "data_batch_3", lambda b: b[:-5], "a damaged pickle|expected"),
        (made.python_10, PY + "batches.meta", lambda b: b.replace(b"truck", b"tr\xffck"), None),
        (made.python_10, PY + "batches.meta", lambda b: b"\x80\x02}.", "a list label_names of 10 names"),
        (made.python_10, PY + "test_batch", lambda b: b.replace(b"U\x04data", b"U\x04dots"), "an array data"),
        (made.binary_10, BIN + "test_batch.bin", lambda b: b[:-1], "61459 bytes are not records of 3073"),
        (made.binary_10, BIN + "test_batch.bin", lambda b: b"\x0a" + b[1:], r"class 11 \(counted from 1\) of 10"),
        (made.binary_10, BIN + "test_batch.bin", lambda b: b"", "0 labels"),
        (made.batches_t7, "cifar-10-batches-t7/data_batch_2.t7", lambda b: b"1\n2\n", "data_batch_2.t7"),
    ],
)  # fmt: skip
def test_damaged_files(
    write: Write10, file: str, change: Callable[[bytes], bytes] | None, message: str | None, tmp_path: Path
) -> None:
    write(tmp_path, TRAIN_10, TEST_10)
    path = tmp_path / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    if message is None:  # an odd name does no harm
        assert len(read_cifar(str(tmp_path), "cifar10").classes) == 10
        return
    with pytest.raises(XnorNetError, match=message) as caught:
        read_cifar(str(tmp_path), "cifar10")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- pickles ----

HOSTILE = {
    "a call": b"cos\nsystem\n(S'touch PLACE'\ntR.",
    "a call by protocol 4": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch PLACE\x85R.",
    "an instance": b"(S'touch PLACE'\nios\nsystem\n.",
    "an object": b"\x80\x02cos\nsystem\nS'touch PLACE'\n\x85\x81.",
    "eval": b'c__builtin__\neval\n(S\'open("PLACE", "w")\'\ntR.',
    "an array of objects": b"cnumpy\ndtype\n(S'O8'\ntR(K\x03S'|'\ntb.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent object": b"Pname\n.",
    "a call of an array's class": b"cnumpy\nndarray\n(I1000000000000\ntR.",
    "an array with no contents": b"cnumpy.core.multiarray\n_reconstruct\n(tR.",
    "a state for a list": b"](b.",
    "nothing": b"",
    "no end": b"\x80\x02}",
    "an empty stack": b"\x85.",
    "an unknown memo": b"g7\n.",
    "a list as a key": b"\x80\x02}]K\x01s.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_in_a_pickle_is_executed(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"\w"):
        pickled_value(HOSTILE[case].replace(b"PLACE", b"here!"))
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_that_would_grow_does_not() -> None:
    """Lists of two of the list before, 60 deep: 2^60 elements for who goes through them."""
    doubled = b"".join(b"](h%ch%ceq%c" % (k, k, k + 1) for k in range(60))  # ] ( BINGET BINGET e BINPUT
    levels = b"]q\x00" + doubled.replace(b"](", b"0](")  # 0: POP, the list is in the memo
    with pytest.raises(ValueError, match="instruction POP"):
        pickled_value(b"\x80\x02}K\x01" + levels + b"s.")
    kept = b"\x80\x02}(K\x00]q\x00" + b"".join(b"K%c](h%ch%ceq%c" % (k + 1, k, k, k + 1) for k in range(60)) + b"u."
    assert len(pickled_value(kept)) == 61


def test_arrays_of_other_orders() -> None:
    array = made.pickled_array(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert pickled_value(b"\x80\x02" + array + b".").tolist() == [[0, 1, 2], [3, 4, 5]]
    turned = array.replace(b"\x89T", b"\x88T")  # in Fortran's order
    assert pickled_value(b"\x80\x02" + turned + b".").tolist() == [[0, 2, 4], [1, 3, 5]]
