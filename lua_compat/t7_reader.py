"""From the bytes of one .t7 object to values.

Ports torch7 File.lua (readObject), Generator.c, tds, nn.GPU and cunn's DataParallelTable. There is no
recursion: containers that are not complete yet wait on a list of frames, so depth costs memory only.
Nothing from a file is executed.
"""

import struct
from typing import Any

import numpy as np

from lua_compat.errors import T7Error
from lua_compat.t7_arrays import ARRAY_CLASSES, read_array
from lua_compat.t7_format import (
    GENERATOR_BYTES,
    Payload,
    Tag,
    payload_of,
)
from lua_compat.t7_key_guard import KEYS_AT_ONCE
from lua_compat.t7_new_tensors import NUMBER_BYTES, NewTensor, NewTensorReader
from lua_compat.t7_runs import SHORTEST_RUN, Patience
from lua_compat.t7_source import MISSING, Source
from lua_compat.values import (
    IdentityKey,
    LuaFunction,
    LuaTable,
    LuaValue,
    Tensor,
    TorchObject,
    brief,
    key_step,
    lua_number,
    text_or_bytes,
)

__all__ = ["ObjectReader"]

LONGEST_PATH = 40  # steps of a path that are shown
MOST_BETWEEN = 100  # objects that stand for the fields of others
MOST_TENSORS = 1 << 15  # read without a look at their keys
LUA_BYTECODE = b"\x1bL"
# Members of an IntEnum are slow to look up.
NIL, NUMBER, STRING, TABLE, TORCH, BOOLEAN, OLDEST_FUNCTION, LEGACY_FUNCTION, FUNCTION = map(int, Tag)


class TableFrame:
    """A table (or tds.Hash) whose entries are being read."""

    __slots__ = ("check_at", "entries", "key", "last_key", "patience", "remaining", "table")

    def __init__(self, table: LuaTable, count: int) -> None:
        self.table = table
        self.entries = table._entries
        self.remaining = count
        self.check_at = count - KEYS_AT_ONCE
        self.key: Any = MISSING
        self.last_key: Any = MISSING
        self.patience: Patience | None = None  # for runs of tensors of one shape

    def read_run(self, source: Source) -> None:
        """Let the source read what it can in one go."""
        if self.remaining < self.check_at:
            source.guard.check(self.entries)
            self.check_at = self.remaining - KEYS_AT_ONCE
        self.remaining, self.key = source.read_entries(self.entries, self.remaining)
        self.last_key = self.key

    def place(self, value: LuaValue) -> None:
        """Take the next key or value."""
        if self.key is MISSING:
            self.key = self.last_key = self.checked_key(value)
            return
        if value is None:  # Lua: setting a key to nil removes it
            self.entries.pop(self.key, None)
        else:
            self.entries[self.key] = value
        self.key = MISSING
        self.remaining -= 1

    def checked_key(self, key: LuaValue) -> Any:
        """The form in which the table stores a key; nil and NaN are refused, as Lua does."""
        if key is None:
            raise T7Error("expected a table key, found nil")
        if type(key) is float:
            if key != key:
                raise T7Error("expected a table key, found NaN")
            return lua_number(key + 0.0)  # -0.0 is the key 0
        if type(key) is bool or isinstance(key, np.ndarray):
            self.table._has_boxes = True
            return IdentityKey(key)
        return key

    def path_step(self, is_reading: bool) -> str:
        """The place of the entry that is being read, or whose parts are."""
        return ".<a key>" if self.last_key is MISSING else key_step(self.last_key)


class PartsFrame:
    """An object or function whose parts (one or two objects, or the elements of a tds.Vec) are being read."""

    __slots__ = ("elements", "key", "owner", "remaining")

    def __init__(self, owner: LuaValue, count: int, elements: list[LuaValue] | None = None) -> None:
        """`elements` takes the parts where they are not the owner's fields or upvalues."""
        self.owner = owner
        self.elements = elements
        self.remaining = count
        self.key = None  # parts have no keys

    def read_run(self, source: Source) -> None:
        """Nothing to read in one go."""

    def place(self, value: LuaValue) -> None:
        """Take the next part."""
        self.remaining -= 1
        owner = self.owner
        if self.elements is not None:
            self.elements.append(value)
        elif type(owner) is LuaFunction:
            owner.upvalues = value
        elif self.remaining:
            owner.header = value
        else:
            if type(value) is not LuaTable and type(value) is not TorchObject:
                raise T7Error(
                    f"expected the table of fields of {owner.typename} (files of 2011 have none), found {brief(value)}"
                )
            if leads_nowhere(value, owner):
                raise T7Error(f"expected the table of fields of {owner.typename}, found objects that lead back to it")
            owner.payload = value

    def path_step(self, is_reading: bool) -> str:
        """The place of the part that is being read, or whose own parts are."""
        if type(self.owner) is TorchObject and self.elements is not None:
            return f"[{len(self.elements) + is_reading}]"
        return ".<upvalues>" if type(self.owner) is LuaFunction else ""


class ObjectReader:
    """Reads objects from a source, one `read_object` after another, with one memo for all of them."""

    def __init__(
        self,
        source: Source,
        new_tensors: NewTensorReader | None = None,
        max_objects: int | None = None,
        n_objects: int = 0,
    ) -> None:
        """`new_tensors`, on the same bytes as `source`, makes many small tensors faster. More than `max_objects`
        tables, tensors, objects and functions are refused, the `n_objects` read before included.
        """
        self.source = source
        self.new_tensors = new_tensors
        self.max_objects = max_objects
        self.n_objects = n_objects
        self.memo: dict[int, LuaValue] = {}
        self.bytes_tried = 0  # read in vain, to see whether another writer appended
        self._frames: list[TableFrame | PartsFrame] = []
        self.started: list[LuaValue] = []  # the object being read, as far as it goes; none before its first part

    def read_object(self) -> LuaValue:
        """The object at the source's position. T7Error where there is none; it has the position and the keys."""
        values = self.started = []
        frames = self._frames = [PartsFrame(None, 1, values)]
        source = self.source
        try:
            while frames:
                frame = frames[-1]
                if frame.key is MISSING:
                    frame.read_run(source)
                if frame.remaining:
                    frame.place(self._read_value())
                else:
                    frames.pop()
        except T7Error as error:
            position = source.position if error.position is None else error.position
            raise T7Error(error.problem, position=position, keys=self._path()) from None
        except struct.error:
            raise T7Error(
                f"the file ends in the middle of an object ({source.size} bytes)",
                position=source.position,
                keys=self._path(),
            ) from None
        return values[0]

    def next_index(self) -> int | None:
        """The number of the table, torch object or function that comes next; None where another object does."""
        source = self.source
        start = source.position
        try:
            tag = source.read_int()
            return source.read_int() if tag in (Tag.TABLE, Tag.TORCH, Tag.LEGACY_FUNCTION, Tag.FUNCTION) else None
        except (T7Error, struct.error):
            return None
        finally:
            source.position = start

    def forget(self) -> None:
        """Let go of what was read, after a failure."""
        self.memo = {}
        self._frames = []
        self.started = []

    def _path(self) -> str:
        """The keys down to the object being read, the middle of a very long path left out."""
        frames: list[TableFrame | PartsFrame | None] = list(self._frames)
        if len(frames) > LONGEST_PATH:
            half = LONGEST_PATH // 2
            frames = [*frames[:half], None, *frames[-half:]]
        left_out = f"...({len(self._frames) - LONGEST_PATH} more)..."
        steps = [left_out if frame is None else frame.path_step(frame is self._frames[-1]) for frame in frames]
        return "".join(steps).removeprefix(".")

    def _read_value(self) -> LuaValue:
        """One value; of a container only the shell, with a frame that will fill it."""
        source = self.source
        start = source.position
        tag = source.read_int()
        if tag == TORCH:
            if self.new_tensors is not None:
                found = self.new_tensors.read(self.memo, start)
                if found is not None:
                    return self._take_new_tensor(self.new_tensors, found, start)
            return self._read_shared(tag)
        if tag == TABLE:
            return self._read_shared(tag)
        if tag == NUMBER:
            return source.read_number()
        if tag == STRING:
            return text_or_bytes(source.read_raw(source.read_int()))
        if tag == NIL:
            return None
        if tag == BOOLEAN:
            return source.read_int() == 1
        if tag in (FUNCTION, LEGACY_FUNCTION):
            return self._read_shared(tag)
        if tag == OLDEST_FUNCTION:
            return self._read_oldest_function()
        raise T7Error(f"expected a type id from 0 to 8, found {tag}", position=start)

    def _take_new_tensor(self, new_tensors: NewTensorReader, found: NewTensor, start: int) -> Tensor:
        """Go on behind a tensor that was read in one piece, and behind others like it in the same table."""
        tensor, end = found[:2]
        self._count_objects(1)
        self.source.position = end
        self.source.has_longs = True
        frame = self._frames[-1]
        if type(frame) is TableFrame and type(frame.key) in (int, float) and frame.remaining > SHORTEST_RUN:
            frame.entries[frame.key] = tensor  # before the others, for the order of the entries
            patience = frame.patience = frame.patience or Patience(0)
            most = min(frame.remaining - 1, MOST_TENSORS)
            if patience.left <= 0:
                entry = start - NUMBER_BYTES
                taken, self.source.position = new_tensors.read_more(self.memo, frame.entries, most, entry, found)
                patience.note(taken)
            else:
                most = min(most, patience.left)
                taken, self.source.position = new_tensors.read_entries(self.memo, frame.entries, most, end)
                patience.left -= taken + 1
            frame.remaining -= taken
            self._count_objects(taken)
        return tensor

    def _count_objects(self, new: int) -> None:
        """Take note of new objects, whose number the caller may have limited."""
        self.n_objects += new
        if self.has_too_many():
            raise T7Error(f"expected at most {self.max_objects} objects (max_objects), found more")

    def has_too_many(self) -> bool:
        """Whether it stopped for the number of objects."""
        return self.max_objects is not None and self.n_objects > self.max_objects

    def _read_shared(self, tag: int) -> LuaValue:
        """A table, torch object or function: one seen before, or a new one under a new index."""
        source = self.source
        start = source.position
        index = source.read_int()
        if index in self.memo:
            value = self.memo[index]
            if tag_of(value) != tag:
                name = Tag(tag).name
                raise T7Error(f"expected {name} number {index}, but that is another object", position=start)
            return value
        self._count_objects(1)
        if tag == TORCH:
            return self._read_torch(index)
        if tag == TABLE:
            table = self.memo[index] = LuaTable()
            return self._open_table(table, source.read_int())
        return self._read_function(index, tag)

    def _remember(self, index: int, value: Any) -> Any:
        """Enter an object in the memo before its parts are read: they may contain it."""
        self.memo[index] = value
        return value

    def _open_table(self, table: LuaTable, count: int) -> LuaTable:
        if count < 0:
            raise T7Error(f"expected a count of table entries, found {count}")
        self.source.require_objects(2 * count)
        self._frames.append(TableFrame(table, count))
        return table

    def _read_function(self, index: int, tag: int) -> LuaFunction:
        function: LuaFunction = self._remember(index, LuaFunction(b"", tag=tag))
        function.bytecode = self.source.read_raw(self.source.read_int())
        self._frames.append(PartsFrame(function, 1))
        return function

    def _read_oldest_function(self) -> LuaFunction:
        """Type 6: without a memo index, but for three days of 2014; only the start of the bytecode tells."""
        source = self.source
        number = source.read_int()
        start = source.position
        if not self._bytecode_follows():
            known = self.memo.get(number)
            if type(known) is LuaFunction and known.tag == OLDEST_FUNCTION:
                return known
            source.read_int()
            is_indexed = self._bytecode_follows()
            source.position = start
            if is_indexed:
                return self._read_function(number, OLDEST_FUNCTION)
        self._count_objects(1)
        function = LuaFunction(source.read_raw(number), tag=OLDEST_FUNCTION)
        self._frames.append(PartsFrame(function, 1))
        return function

    def _bytecode_follows(self) -> bool:
        """Whether Lua's bytecode signature comes next; the position stays."""
        start = self.source.position
        raw = self.source.read_raw(min(len(LUA_BYTECODE), self.source.size - start))
        self.source.position = start
        return raw == LUA_BYTECODE

    def _read_torch(self, index: int) -> LuaValue:
        start = self.source.position
        typename, version = self.source.read_class()
        array_class = ARRAY_CLASSES.get(typename)
        if array_class is not None:
            array = self.memo[index] = read_array(self.source, self.memo, index, array_class)
            return array
        try:
            return self._read_instance(index, typename, version)
        except T7Error as error:
            error.position = start if error.position is None else error.position
            raise

    def _read_instance(self, index: int, typename: str, version: float) -> TorchObject:
        """An object of any other class, with the payload its class has."""
        source = self.source
        value: TorchObject = self._remember(index, TorchObject(typename, version=version))
        payload = payload_of(typename, version)
        if payload is Payload.ONE_OBJECT:
            self._frames.append(PartsFrame(value, 1))
        elif payload is Payload.TWO_OBJECTS:
            self._frames.append(PartsFrame(value, 2))
        elif payload is Payload.PAIRS:
            self._open_table(value.payload, source.read_longs(1)[0])
        elif payload is Payload.ELEMENTS:
            (count,) = source.read_longs(1)
            if count < 0:
                raise T7Error(f"expected a count of elements, found {count}")
            source.require_objects(count)
            value.payload = []
            self._frames.append(PartsFrame(value, count, value.payload))
        elif payload is Payload.LONG:
            (value.payload,) = source.read_longs(1)
        elif payload is Payload.GENERATOR:
            value.payload = source.read_raw(GENERATOR_BYTES)
        return value


def leads_nowhere(value: LuaValue, owner: TorchObject) -> bool:
    """Whether `value`, which stands for the fields of `owner`, has `owner` for its own fields, or so many objects
    in between that nobody can have meant it.
    """
    for _ in range(MOST_BETWEEN):
        if type(value) is not TorchObject:
            return False
        if value is owner:
            return True
        value = value.payload
    return True


def tag_of(value: LuaValue) -> int:
    """The type id under which an object in the memo was written."""
    if type(value) is LuaTable:
        return TABLE
    if type(value) is LuaFunction:
        return value.tag
    return TORCH
