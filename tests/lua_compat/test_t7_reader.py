"""Reading objects: layouts written out byte by byte, the memo, depth, and what an error says."""

import struct
from pathlib import Path

import numpy as np
import pytest

import lua_compat
from lua_compat import LuaFunction, LuaTable, T7Error, TorchObject


def number(value: float) -> bytes:
    return struct.pack("<id", 1, value)


def string(text: bytes) -> bytes:
    return struct.pack("<ii", 2, len(text)) + text


def boolean(value: int) -> bytes:
    return struct.pack("<ii", 5, value)


def table(index: int, *entries: bytes) -> bytes:
    return struct.pack("<iii", 3, index, len(entries) // 2) + b"".join(entries)


def torch_class(index: int, name: bytes, version: bytes = b"V 1") -> bytes:
    parts = struct.pack("<iii", 4, index, len(version)) + version
    return parts + struct.pack("<i", len(name)) + name


NIL = struct.pack("<i", 0)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (NIL, None),
        (number(3), 3),
        (number(0.5), 0.5),
        (string(b""), ""),
        (string("größe".encode()), "größe"),
        (string(b"\xff\x00"), b"\xff\x00"),
        (boolean(1), True),
        (boolean(0), False),
        (boolean(2), False),  # File.lua readBool: == 1
    ],
)
def test_scalars(data: bytes, value: object) -> None:
    found = lua_compat.loads(data)
    assert (found, type(found)) == (value, type(value))


def test_a_table_that_holds_itself() -> None:
    found = lua_compat.loads(table(1, string(b"self"), struct.pack("<ii", 3, 1)))
    assert found["self"] is found


def test_a_table_that_is_its_own_key() -> None:
    found = lua_compat.loads(table(7, struct.pack("<ii", 3, 7), number(1)))
    assert found[found] == 1


def test_memo_numbers_need_no_order() -> None:
    found = lua_compat.loads(table(50, number(1), table(-3), number(2), struct.pack("<ii", 3, -3)))
    assert found[1] is found[2]


def test_entries_that_are_nil_do_not_exist() -> None:
    assert len(lua_compat.loads(table(1, string(b"a"), NIL, string(b"b"), number(1)))) == 1


def test_a_function_of_the_oldest_kind_has_no_memo_number() -> None:
    code = b"\x1bLJ\x01"
    data = struct.pack("<ii", 6, len(code)) + code + table(1)
    found = lua_compat.loads(table(2, string(b"f"), data, string(b"after"), number(1)))
    assert (found["f"].bytecode, found["f"].tag, found["after"]) == (code, 6, 1)


def test_a_function_of_july_2014_has_one_under_the_same_type_id() -> None:
    code = b"\x1bLJ\x01"
    data = struct.pack("<iii", 6, 9, len(code)) + code + table(1)
    found = lua_compat.loads(table(2, string(b"f"), data, string(b"g"), struct.pack("<ii", 6, 9)))
    assert found["f"].bytecode == code
    assert found["g"] is found["f"]


@pytest.mark.parametrize("tag", [7, 8])
def test_a_function_that_holds_itself(tag: int) -> None:
    code = b"\x1bLJ\x02"
    data = struct.pack("<iii", tag, 1, len(code)) + code + table(2, number(1), struct.pack("<ii", tag, 1))
    found = lua_compat.loads(data)
    assert isinstance(found, LuaFunction)
    assert found.upvalues[1] is found
    assert lua_compat.dumps(found) == data


def test_an_object_that_holds_itself() -> None:
    data = torch_class(1, b"nn.X") + table(2, string(b"me"), struct.pack("<ii", 4, 1))
    found = lua_compat.loads(data)
    assert found["me"] is found


@pytest.mark.parametrize("count", [1, 2, 3, 500])
def test_objects_that_stand_for_their_own_fields_are_refused(count: int) -> None:
    """Looking for a field of theirs would never end."""
    data = b"".join(torch_class(index, b"nn.X") for index in range(1, count + 1)) + struct.pack("<ii", 4, 1)
    with pytest.raises(T7Error, match=r"expected the table of fields of nn\.X, found objects that lead back to it"):
        lua_compat.loads(data)


def test_an_object_whose_fields_are_a_vector_can_be_shown() -> None:
    data = torch_class(1, b"nn.X") + torch_class(2, b"tds.Vec", b"V 0") + struct.pack("<q", 1) + number(5)
    assert repr(lua_compat.loads(data)) == "TorchObject('nn.X', <tds.Vec>)"


def test_an_object_that_stands_for_the_fields_of_two() -> None:
    shared = torch_class(2, b"nn.X") + torch_class(3, b"nn.Y") + table(4, string(b"size"), number(5))
    data = table(9, number(1), shared, number(2), torch_class(5, b"nn.Z") + struct.pack("<ii", 4, 2))
    found = lua_compat.loads(data)
    assert (found[1]["size"], found[2]["size"]) == (5, 5)
    assert found[2].payload is found[1]


def test_old_and_new_versions() -> None:
    for version, number_of_it in ((b"V 2", 2), (b"V 1.0", 1.0), (b"V 10", 10)):
        found = lua_compat.loads(torch_class(1, b"nn.X", version) + table(2))
        assert (found.typename, found.version) == ("nn.X", number_of_it)
    unversioned = struct.pack("<iii", 4, 1, 4) + b"nn.X" + table(2)
    assert lua_compat.loads(unversioned).version == 0


def test_two_tables_of_nn_gpu() -> None:
    data = torch_class(1, b"nn.GPU") + table(2, string(b"device"), number(3)) + table(3, string(b"a"), number(1))
    found = lua_compat.loads(data)
    assert (found.header["device"], found["a"]) == (3, 1)
    assert lua_compat.dumps(found) == data


@pytest.mark.parametrize(("version", "count"), [(b"V 1", 1), (b"V 2", 2), (b"V 3", 2)])
def test_data_parallel_table_has_two_tables_from_version_2(version: bytes, count: int) -> None:
    tables = [table(2, string(b"t"), number(1)), table(3, string(b"t"), number(2))][:count]
    found = lua_compat.loads(torch_class(1, b"nn.DataParallelTable", version) + b"".join(tables))
    assert found["t"] == count
    assert (found.header is None) == (count == 1)


def test_tds_and_timer() -> None:
    vector = torch_class(1, b"tds.Vec", b"V 0") + struct.pack("<q", 3) + number(1) + NIL + string(b"x")
    assert lua_compat.loads(vector).payload == [1, None, "x"]
    assert lua_compat.dumps(lua_compat.loads(vector)) == vector
    mapping = torch_class(1, b"tds.Hash", b"V 0") + struct.pack("<q", 1) + boolean(1) + string(b"x")
    assert lua_compat.loads(mapping)[True] == "x"
    counter = torch_class(1, b"tds.AtomicCounter", b"V 0") + struct.pack("<q", -5)
    assert lua_compat.loads(counter).payload == -5
    timer = table(1, string(b"timer"), torch_class(2, b"torch.Timer"), string(b"after"), number(1))
    assert lua_compat.loads(timer)["after"] == 1
    assert lua_compat.dumps(lua_compat.loads(timer)) == timer


@pytest.mark.parametrize("key", [1, "next"])
def test_nesting_needs_no_recursion(key: object) -> None:
    depth = 100_000
    value = None
    for _ in range(depth):
        value = LuaTable({key: value} if value is not None else {})
    found = lua_compat.loads(lua_compat.dumps(value))
    assert lua_compat.equal(found, value)
    count = 1
    while len(found):
        found, count = found[key], count + 1
    assert count == depth


def tensor(index: int, sizes: list[int], strides: list[int], offset: int, storage: bytes) -> bytes:
    longs = struct.pack(f"<i{2 * len(sizes) + 1}q", len(sizes), *sizes, *strides, offset)
    return torch_class(index, b"torch.DoubleTensor") + longs + storage


def storage(index: int, *elements: float) -> bytes:
    return torch_class(index, b"torch.DoubleStorage") + struct.pack(f"<q{len(elements)}d", len(elements), *elements)


def test_tensors_on_one_storage_share_memory() -> None:
    data = table(
        1,
        *(string(b"all"), tensor(2, [2, 2], [2, 1], 1, storage(3, 1, 2, 3, 4))),
        *(string(b"part"), tensor(4, [2], [2], 2, struct.pack("<ii", 4, 3))),
        *(string(b"storage"), struct.pack("<ii", 4, 3)),
    )
    found = lua_compat.loads(data)
    assert found["part"].tolist() == [2, 4]
    found["part"][0] = 20
    assert found["all"].tolist() == [[1, 20], [3, 4]]
    assert found["storage"].tolist() == [1, 20, 3, 4]
    assert found["all"].base is found["storage"]
    found["part"][0] = 2
    assert lua_compat.dumps(found) == data


def test_repeated_elements_are_a_view() -> None:
    found = lua_compat.loads(tensor(1, [2**40], [0], 2, storage(2, 5, 6)))
    assert (found.shape, found.strides, found[2**39]) == ((2**40,), (0,), 6)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 1, 2)])
def test_many_small_tensors_are_read_as_one(shape: tuple[int, ...]) -> None:
    arrays = [np.random.default_rng(number).normal(size=shape) for number in range(2000)]
    data = lua_compat.dumps({"before": 1, "list": arrays, "after": 2})
    found = lua_compat.loads(data)
    assert all(np.array_equal(one, other) for one, other in zip(found["list"].to_list(), arrays, strict=True))
    assert list(found["list"]) == list(range(1, 2001))
    assert lua_compat.dumps(found) == data
    for one in found["list"].to_list():
        assert one.flags.aligned
        assert one.flags.writeable


def test_lists_of_strings_of_all_lengths_with_gaps_in_their_numbers() -> None:
    texts = [b"x" * (index * 7 % 23) for index in range(300)]
    texts[40] = b"\xff not UTF-8"
    keys = [float(index) for index in range(-100, 200)]
    keys[100] = -0.0  # the key 0
    keys[150:160] = [index + 0.5 for index in range(10)]
    keys[298], keys[299] = 2.0**53 - 1, 2.0**53  # the first is exact as an int, the second is not
    data = table(1, *(part for key, text in zip(keys, texts, strict=True) for part in (number(key), string(text))))
    found = lua_compat.loads(data)
    assert [float(key) for key in found] == keys
    assert [type(key) for key in found] == [int] * 150 + [float] * 10 + [int] * 139 + [float]
    assert list(found.values()) == [text if b"\xff" in text else text.decode() for text in texts]


def test_lists_of_tensors_of_all_lengths_with_other_values_and_gaps_among_them() -> None:
    keys = [float(index) for index in range(-50, 350)]
    keys[50], keys[200] = -0.0, 0.5
    parts = {}
    for index, key in enumerate(keys):
        elements = [float(index)] * (1 + index * 7 % 5)
        parts[key] = tensor(2 * index + 2, [len(elements)], [1], 1, storage(2 * index + 3, *elements))
    parts[100.0] = string(b"no tensor")
    parts[101.0] = struct.pack("<ii", 4, 2)  # the first one again
    found = lua_compat.loads(table(1, *(part for key, value in parts.items() for part in (number(key), value))))
    assert [float(key) for key in found] == keys
    assert [type(key) for key in found] == [int] * 200 + [float] + [int] * 199
    assert found[100] == "no tensor"
    assert found[101] is found[-50]
    for index, value in enumerate(found.values()):
        if index not in (150, 151):
            assert value.tolist() == [index] * (1 + index * 7 % 5)
            assert value.base.typename == "torch.DoubleStorage"


def test_runs_of_tensors_end_where_a_number_repeats() -> None:
    """The 41st tensor is the first one again: its memo number stands where a new one would."""
    arrays = [np.full(3, number, "f4") for number in range(100)]
    arrays[40] = arrays[0]
    found = lua_compat.loads(lua_compat.dumps(arrays))
    assert found[41] is found[1]
    assert [tensor[0] for tensor in found.to_list()] == [array[0] for array in arrays]


class TestErrors:
    """Position, path of keys, what was expected."""

    def message(self, data: bytes) -> str:
        with pytest.raises(T7Error) as caught:
            lua_compat.loads(data)
        return str(caught.value)

    def test_path_and_position(self) -> None:
        inner = table(3, string(b"weight"), struct.pack("<i", 99))
        data = table(1, string(b"modules"), table(2, number(1), inner))
        position = len(data) - 4
        assert self.message(data) == (
            f"byte {position}, at modules[1].weight: expected a type id from 0 to 8, found 99"
        )

    def test_path_in_an_object_and_a_vector(self) -> None:
        vector = torch_class(5, b"tds.Vec", b"V 0") + struct.pack("<q", 2) + NIL + struct.pack("<ii", 2, -7)
        data = torch_class(1, b"nn.X") + table(2, string(b"names"), vector)
        assert "at names[2]: expected the length of a string, found -7" in self.message(data)

    def test_a_deep_path_is_shortened(self) -> None:
        data = b"".join(struct.pack("<iii", 3, index, 1) + number(1) for index in range(1, 1000))
        message = self.message(data)
        assert "more)..." in message
        assert len(message) < 500

    def test_memo_of_another_kind(self) -> None:
        assert "that is another object" in self.message(table(1, string(b"x"), struct.pack("<ii", 4, 1)))
        data = table(1, string(b"x"), tensor(2, [1], [1], 1, struct.pack("<ii", 4, 1)))
        assert "expected a torch.DoubleStorage, found another object under number 1" in self.message(data)

    def test_keys_that_lua_does_not_have(self) -> None:
        assert "expected a table key, found NaN" in self.message(table(1, number(float("nan")), number(1)))
        assert "expected a table key, found nil" in self.message(table(1, NIL, number(1)))

    def test_class_names(self) -> None:
        assert "expected a class name, found b'nn\\n\\x1b[31m'" in self.message(torch_class(1, b"nn\n\x1b[31m") + NIL)

    def test_fields_that_are_no_table(self) -> None:
        message = self.message(torch_class(1, b"nn.Threshold") + number(1))
        assert "expected the table of fields of nn.Threshold" in message

    @pytest.mark.parametrize("length", [-1, -30, 1000])
    def test_a_broken_string_in_a_long_list(self, length: int) -> None:
        entries = [part for index in range(1, 50) for part in (number(index), string(b"x" * index))]
        data = table(1, *entries, number(50), struct.pack("<ii", 2, length))
        problem = "the length of a string, found" if length < 0 else "a string of 1000 bytes (1000 bytes), but only 0"
        assert f"at [50]: expected {problem}" in self.message(data)

    def test_a_broken_tensor_in_a_long_list(self) -> None:
        entries = []
        for index in range(1, 100):
            elements = [0.0] * (1 + index % 5)
            value = tensor(2 * index, [len(elements)], [1], 1, storage(2 * index + 1, *elements))
            entries += [number(index), value]
        outside = tensor(500, [3], [1], 1, storage(501, 1, 2))
        message = self.message(table(1, *entries, number(100), outside, number(101), NIL))
        assert "at [100]: torch.DoubleTensor: expected elements within a storage of 2" in message

    def test_strides_too_large_for_numpy(self) -> None:
        assert "DoubleTensor" in self.message(tensor(1, [1], [2**62], 1, storage(2, 5)))

    def test_a_shape_too_large_for_numpy_without_elements(self) -> None:
        assert "DoubleTensor" in self.message(tensor(1, [0, 2**40, 2**40], [1, 1, 1], 1, NIL))

    def test_elements_in_total_too_many_for_numpy(self) -> None:
        assert "DoubleTensor" in self.message(tensor(1, [2**40, 2**40], [0, 0], 1, storage(2, 5)))


def test_a_real_network_of_2011_is_refused_with_its_class(shared: Path) -> None:
    path = shared / "t7_samples" / "torch+demos" / "face-detector" / "face@f25a8883.net"
    with pytest.raises(T7Error, match=r"byte \d+.*nn\.SpatialNormalization"):
        lua_compat.load(path)


def sample_files(shared: Path) -> list[Path]:
    folder = shared / "t7_samples"
    skipped = (".md", ".json", "face@f25a8883.net")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(skipped)]


def test_real_files_read_and_survive_all_encodings(shared: Path) -> None:
    paths = sample_files(shared)
    assert len(paths) > 40
    for path in paths:
        value = lua_compat.load(path)
        for mode in ("binary", "ascii"):
            for long_size in (4, 8):
                for byte_order in ("little", "big"):
                    data = lua_compat.dumps(value, mode, long_size=long_size, byte_order=byte_order)
                    found = next(lua_compat.differences(value, lua_compat.loads(data)), None)
                    assert found is None, f"{path.name}: {found}"


def test_real_networks_hold_what_the_manifest_says(shared: Path) -> None:
    path = shared / "t7_samples" / "lifrordi+DeepStack-Leduc" / "Data" / "Models" / "PotBet" / "final_gpu.model"
    network = lua_compat.load(path)
    assert isinstance(network, TorchObject)
    assert (network.typename, network["gradInput"].typename) == ("nn.Sequential", "torch.CudaTensor")
