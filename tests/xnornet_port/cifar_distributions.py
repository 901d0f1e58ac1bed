"""CIFAR's distributions in miniature, byte for byte in the formats of the real ones."""

import struct
from pathlib import Path

import numpy as np

import lua_compat
from lua_compat import LuaTable

TEN = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
HUNDRED = [b"fine_%d" % k for k in range(100)]
SIX = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
Pictures = tuple[np.ndarray, np.ndarray]  # uint8 (N, 3072), labels from 0


def pictures(seed: int, n: int, n_classes: int) -> Pictures:
    """Every class in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
    return pixels, np.arange(n) % n_classes


# ---- python: pickles of protocol 2 as cPickle of Python 2 wrote them ----


def short_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def pickled_array(array: np.ndarray) -> bytes:
    """_reconstruct(ndarray, (0,), 'b'), then its state (1, shape, dtype('u1'), False, bytes)."""
    content = array.tobytes()
    shape = b"M" + struct.pack("<H", array.shape[0]) + b"M" + struct.pack("<H", array.shape[1]) + b"\x86"
    return b"".join([
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85", short_string(b"b"),
        b"\x87Rq\x04(K\x01", shape,
        b"cnumpy\ndtype\nq\x05", short_string(b"u1"), b"K\x00K\x01\x87Rq\x06(K\x03", short_string(b"|"),
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb", b"\x89T", struct.pack("<I", len(content)), content, b"tb",
    ])  # fmt: skip


def pickled_list(entries: list[bytes]) -> bytes:
    return b"](" + b"".join(entries) + b"e"


def pickled_table(**entries: bytes) -> bytes:
    return b"\x80\x02}q\x01(" + b"".join(short_string(k.encode()) + v for k, v in entries.items()) + b"u."


def small_int(value: int) -> bytes:
    return b"K" + bytes([value])


def python_10(folder: Path, train: list[Pictures], test: Pictures) -> Path:
    folder = folder / "cifar-10-batches-py"
    folder.mkdir()
    for name, (pixels, labels) in zip(
        [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], [*train, test], strict=True
    ):
        table = pickled_table(
            batch_label=short_string(b"training batch"),
            labels=pickled_list([small_int(int(label)) for label in labels]),
            data=pickled_array(pixels),
            filenames=pickled_list([short_string(b"x_s_%d.png" % k) for k in range(len(labels))]),
        )
        (folder / name).write_bytes(table)
    names = pickled_list([short_string(name) for name in TEN])
    (folder / "batches.meta").write_bytes(
        pickled_table(num_cases_per_batch=b"M\x10\x27", label_names=names, num_vis=b"M\x00\x0c")
    )
    return folder.parent


def python_100(folder: Path, train: Pictures, test: Pictures) -> Path:
    folder = folder / "cifar-100-python"
    folder.mkdir()
    for name, (pixels, labels) in (("train", train), ("test", test)):
        table = pickled_table(
            fine_labels=pickled_list([small_int(int(label)) for label in labels]),
            coarse_labels=pickled_list([small_int(int(label) // 5) for label in labels]),
            data=pickled_array(pixels),
        )
        (folder / name).write_bytes(table)
    names = pickled_list([short_string(name) for name in HUNDRED])
    (folder / "meta").write_bytes(pickled_table(fine_label_names=names))
    return folder.parent


# ---- binary ----


def binary_10(folder: Path, train: list[Pictures], test: Pictures) -> Path:
    folder = folder / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (pixels, labels) in zip(
        [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], [*train, test], strict=True
    ):
        (folder / f"{name}.bin").write_bytes(
            b"".join(bytes([k]) + p.tobytes() for p, k in zip(pixels, labels, strict=True))
        )
    (folder / "batches.meta.txt").write_bytes(b"\n".join(TEN) + b"\n\n")
    return folder.parent


def binary_100(folder: Path, train: Pictures, test: Pictures) -> Path:
    folder = folder / "cifar-100-binary"
    folder.mkdir()
    for name, (pixels, labels) in (("train", train), ("test", test)):
        records = [bytes([k // 5, k]) + p.tobytes() for p, k in zip(pixels, labels.tolist(), strict=True)]
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    (folder / "fine_label_names.txt").write_bytes(b"\n".join(HUNDRED) + b"\n")
    return folder.parent


# ---- Torch7's ----


def bytes_tensor(array: np.ndarray) -> np.ndarray:
    return lua_compat.tensor(np.ascontiguousarray(array.astype(np.uint8)))


def batches_t7(folder: Path, train: list[Pictures], test: Pictures) -> Path:
    """cifar10.t7.tgz: ascii files, data (3072, N) and labels (1, N) from 0."""
    folder = folder / "cifar-10-batches-t7"
    folder.mkdir()
    for name, (pixels, labels) in zip(
        [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"], [*train, test], strict=True
    ):
        table = LuaTable({"data": bytes_tensor(pixels.T), "labels": bytes_tensor(labels[None])})
        lua_compat.save(folder / f"{name}.t7", table, mode="ascii")
    return folder.parent


def two_t7(folder: Path, train: list[Pictures], test: Pictures) -> Path:
    """cifar10torchsmall: data (N, 3, 32, 32) and label (N) from 1."""
    whole = tuple(np.concatenate(parts) for parts in zip(*train, strict=True))
    for name, (pixels, labels) in (("train", whole), ("test", test)):
        table = LuaTable({"data": bytes_tensor(pixels.reshape(-1, 3, 32, 32)), "label": bytes_tensor(labels + 1)})
        lua_compat.save(folder / f"cifar10-{name}.t7", table)
    return folder


def one_t7(folder: Path, name: str, train: Pictures, test: Pictures) -> Path:
    """fb.resnet.torch's gen/cifar10.t7, gen/cifar100.t7."""
    tables = {
        key: LuaTable({"data": bytes_tensor(pixels.reshape(-1, 3, 32, 32)), "labels": bytes_tensor(labels + 1)})
        for key, (pixels, labels) in (("train", train), ("val", test))
    }
    lua_compat.save(folder / f"{name}.t7", LuaTable(tables))
    return folder
