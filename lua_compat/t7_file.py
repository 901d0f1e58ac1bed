"""Opening .t7 files: what encoding a file has, reading one object or all of them.

Nothing in a .t7 file says how it is encoded. The first bytes tell ascii from binary and the byte order; the
size of a long shows in whether the file makes sense with it, up to its last byte.
"""

import errno
import mmap
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from lua_compat.errors import T7Error
from lua_compat.t7_ascii_source import AsciiSource
from lua_compat.t7_format import Layout, Tag
from lua_compat.t7_identify import what_it_is
from lua_compat.t7_new_tensors import NewTensorReader
from lua_compat.t7_reader import ObjectReader
from lua_compat.t7_source import BinarySource
from lua_compat.values import LuaValue

__all__ = ["TrailingDataWarning", "iter_objects", "load", "loads"]

# Files up to this size are read whole before they are looked at; of larger ones the structure is read
# through a memory map and each storage straight into its own memory.
READ_WHOLE = 1 << 26

# Objects that are read at once to find the layout. More are read one by one when they are asked for.
MOST_SAMPLED = 1000

# How often the bytes of a file may be read in vain while looking for objects that another writer appended.
MOST_TRIED = 4


class TrailingDataWarning(UserWarning):
    """A file holds more than the one object that was asked for."""


def load(
    path: str | Path,
    *,
    mode: str | None = None,
    long_size: int | None = None,
    byte_order: str | None = None,
    mmap: bool = False,
    max_objects: int | None = None,
) -> LuaValue:
    """The value in a .t7 file, as torch.load gives it.

    `mode` ("binary", "ascii"), `long_size` (4, 8) and `byte_order` ("little", "big") are found out where
    they are not given. With `mmap`, tensors are views of the file itself, mapped into memory: opening costs
    no reading; changing an array changes memory, not the file. A file of more than `max_objects` tables,
    tensors, objects and functions is refused: a tiny one takes 25 times its room in the file. T7Error
    where the file cannot be read or is not a .t7 file; a TrailingDataWarning where the file goes on after
    the first object (see `iter_objects`).
    """
    reading = read_file(path, Wanted(mode, long_size, byte_order, max_objects), maps=mmap)
    warn_of_rest(str(path), reading)
    return reading.values[0]


def loads(
    data: bytes | bytearray | memoryview,
    *,
    mode: str | None = None,
    long_size: int | None = None,
    byte_order: str | None = None,
    max_objects: int | None = None,
) -> LuaValue:
    """The value in the bytes of a .t7 file, as torch.deserialize gives it; see `load`."""
    try:
        memoryview(data)  # bytes(5) would be five zeros
    except TypeError:
        raise T7Error(
            f"loads takes a file's bytes, found a Python {type(data).__name__}; lua_compat.load takes a file's name"
        ) from None
    buffer = bytes(data)
    reading = read_buffer(buffer, Wanted(mode, long_size, byte_order, max_objects), "")
    warn_of_rest("the data", reading)
    return reading.values[0]


def iter_objects(
    path: str | Path,
    *,
    mode: str | None = None,
    long_size: int | None = None,
    byte_order: str | None = None,
    mmap: bool = False,
    max_objects: int | None = None,
) -> Iterator[LuaValue]:
    """All objects of a file, one after another: of one writer, or of several that appended to it.

    Raises T7Error at the first object that cannot be read, after those before it were given. `max_objects`
    is counted anew for each writer whose objects are read when they are asked for (after the first 1000 objects).
    """
    wanted = Wanted(mode, long_size, byte_order, max_objects)
    with opened(path, maps=mmap) as (buffer, file):
        reading = read_buffer(buffer, wanted, str(path), file, views=mmap)
        yield from reading.values
        if reading.problem is not None:
            raise reading.problem
        reader = reading.reader
        while not reader.source.at_end():
            try:
                reader = reader_for_next(reader, n_objects=0)
                yield reader.read_object()
            except T7Error as error:
                raise placed(error, str(path)) from None


@dataclass
class Reading:
    """What a file gave in one layout."""

    values: list[LuaValue]  # the first objects, at most MOST_SAMPLED
    problem: T7Error | None  # what stopped the reading before the end of the file
    end: int  # the byte after the last of them
    reader: ObjectReader  # to go on with
    started: list[LuaValue] = field(default_factory=list)  # what it stopped in, where wanted

    @property
    def layout(self) -> Layout:
        return self.reader.source.layout

    def reached(self) -> int:
        """The byte up to which the file made sense."""
        return self.reader.source.position


class Wanted:
    """What the caller says of a file's encoding, None for what is to be found out, and of its size."""

    def __init__(
        self,
        mode: str | None,
        long_size: int | None,
        byte_order: str | None,
        max_objects: int | None = None,
        started: bool = False,
    ) -> None:
        """`started`: of what breaks off the beginning is wanted, in place of an error where it is the first object."""
        if mode not in (None, "binary", "ascii"):
            raise ValueError(f"mode is 'binary' or 'ascii', not {mode!r}")
        if long_size not in (None, 4, 8):
            raise ValueError(f"long_size is 4 or 8, not {long_size!r}")
        if byte_order not in (None, "little", "big"):
            raise ValueError(f"byte_order is 'little' or 'big', not {byte_order!r}")
        self.mode = mode
        self.long_size = long_size
        self.byte_order = byte_order
        self.max_objects = max_objects
        self.started = started

    def layouts(self, head: bytes) -> list[Layout]:
        """The layouts to try, likeliest first; none where `head` starts no .t7 file."""
        mode = self.mode or guess_mode(head)
        if mode == "ascii":
            return [Layout("ascii", self.long_size or 8, self.byte_order or "little")]
        order = self.byte_order or guess_byte_order(head)
        if order is None:
            return []
        if self.long_size:
            return [Layout("binary", self.long_size, order)]
        return [Layout("binary", 8, order), Layout("binary", 4, order, is_guess=True)]


def guess_mode(head: bytes) -> str:
    """An ascii file starts with a digit and a line end; no binary one does."""
    return "ascii" if head[:1] in b"012345678" and head[1:2] == b"\n" else "binary"


def guess_byte_order(head: bytes) -> str | None:
    """The byte order in which the first int is a type id; None where it is in neither."""
    if len(head) >= 4:
        if int.from_bytes(head[:4], "little") <= max(Tag):
            return "little"
        if int.from_bytes(head[:4], "big") <= max(Tag):
            return "big"
    return None


def read_file(path: str | Path, wanted: Wanted, maps: bool) -> Reading:
    """The first objects of a file; see `read_buffer`."""
    with opened(path, maps) as (buffer, file):
        return read_buffer(buffer, wanted, str(path), file, views=maps)


@contextmanager
def opened(path: str | Path, maps: bool) -> Iterator[tuple[bytes | mmap.mmap, FileIO | None]]:
    """The bytes of a file, and the file itself where large storages are to be read from it."""
    if not isinstance(path, (str, bytes, os.PathLike)):  # a number would be a file that is open already
        advice = "give its bytes to lua_compat.loads" if hasattr(path, "read") else "give the name"
        raise T7Error(f"expected a file's name, found a Python {type(path).__name__}: {advice}")
    try:
        with opened_file(path) as file:
            buffer = file_bytes(file, maps)
            yield buffer, None if maps or isinstance(buffer, bytes) else file
    except OSError as error:
        raise T7Error(f"cannot be read: {error.strerror or error}", file=path) from None


def opened_file(path: str | Path) -> FileIO:
    """The file itself, or a pipe; OSError for a device, which might never end."""
    try:
        file = FileIO(path)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a device, not a file")
    return file


def file_bytes(file: FileIO, maps: bool) -> bytes | mmap.mmap:
    """A file's bytes, in memory or mapped. Changes to a map that the caller asked for stay in memory."""
    size = file.seek(0, 2) if file.seekable() else 0
    if size and (maps or size > READ_WHOLE):
        access = mmap.ACCESS_COPY if maps else mmap.ACCESS_READ
        return mmap.mmap(file.fileno(), 0, access=access)
    if size:
        file.seek(0)
    return file.readall()


def read_buffer(
    buffer: bytes | mmap.mmap, wanted: Wanted, name: str, file: FileIO | None = None, views: bool = False
) -> Reading:
    """The first objects of a buffer, in the layout in which they make sense to the end.

    Where none does, the first layout counts if it gives an object at all. Another layout does not: with
    longs of the wrong size damaged bytes may well begin like an object. T7Error where no object can be
    read.
    """
    layouts = wanted.layouts(buffer[:8])
    if not layouts:
        raise T7Error(what_it_is(buffer[:4096]), file=name, position=0)

    def reader(layout: Layout) -> ObjectReader:
        if layout.mode == "ascii":
            return ObjectReader(AsciiSource(buffer[:], layout), None, wanted.max_objects)
        new_tensors = None if views else NewTensorReader(buffer, layout)
        return ObjectReader(BinarySource(buffer, layout, file, views), new_tensors, wanted.max_objects)

    failed = []
    for layout in layouts:
        reading = read_first(reader(layout), name, wanted.started)
        if reading.problem is None:
            return reading
        failed.append(reading)
        if not reading.reader.source.has_longs:
            break  # their size makes no difference
    first = failed[0]
    if first.values or first.problem is None:
        return first
    further = [each for each in failed if not each.values and each.reached() > first.reached()]
    best = further[0] if further else first
    if best.started:
        return best
    raise best.problem or first.problem


def read_first(reader: ObjectReader, name: str, wants_started: bool = False) -> Reading:
    """The objects up to the end, but not very many, or up to the first that cannot be read and why."""
    values: list[LuaValue] = []
    end = 0
    try:
        while len(values) < MOST_SAMPLED and not (values and reader.source.at_end()):
            reader = reader_for_next(reader, reader.n_objects) if values else reader
            values.append(reader.read_object())
            end = reader.source.position
    except T7Error as error:
        started = reader.started if wants_started else []
        reader.forget()
        return Reading(values, placed(error, name), end, reader, started)
    return Reading(values, None, end, reader)


def placed(error: T7Error, name: str) -> T7Error:
    """An error with the name of its file."""
    return T7Error(error.problem, file=name, position=error.position, keys=error.keys)


def reader_for_next(reader: ObjectReader, n_objects: int) -> ObjectReader:
    """The reader for the next object of a file: where another writer appended a fresh one, which counts on from
    `n_objects`.

    Each writer numbers its objects from 1. An object numbered 1, where there was a 1 before, is either that
    one again (then nothing follows its number) or the first of an appended run (then its contents follow):
    it is the latter if it reads as such, and another object or the end of the file follows.
    """
    source = reader.source
    start = source.position
    if 1 not in reader.memo or reader.next_index() != 1 or reader.bytes_tried > MOST_TRIED * source.size:
        return reader
    trial = ObjectReader(source, reader.new_tensors, reader.max_objects)
    try:
        trial.read_object()
        appended = source.at_end() or source.read_int() in set(Tag)
    except (T7Error, struct.error):
        if trial.has_too_many():
            raise
        appended = False
    reader.bytes_tried += source.position - start
    source.position = start
    return ObjectReader(source, reader.new_tensors, reader.max_objects, n_objects) if appended else reader


def warn_of_rest(name: str, reading: Reading) -> None:
    """Say that a file goes on after its first object; refuse one whose next object breaks off in its middle.

    Foreign bytes after an object (raw numbers written by hand) are no harm to it. But an object that begins
    and cannot be read means damage, or a layout that is not the one it was taken for, as of the files of
    2011.
    """
    count, problem = len(reading.values), reading.problem
    if problem is not None:
        if problem.position != reading.end:
            raise problem
        text = f"{name}: only the first object was read; what follows is not one: {problem.problem}"
    elif count > 1:
        number = f"{count}" if count < MOST_SAMPLED else "many"
        text = f"{name}: only the first of {number} objects was read; lua_compat.iter_objects gives them all"
    else:
        return
    warnings.warn(text, TrailingDataWarning, stacklevel=3)
