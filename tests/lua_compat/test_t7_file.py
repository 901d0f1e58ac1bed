"""Finding out how a file is encoded, several objects in a file, memory maps."""

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

import lua_compat
from lua_compat import T7Error, TrailingDataWarning, t7_file


def objects(path: Path, **options: object) -> list[object]:
    return list(lua_compat.iter_objects(path, **options))


class TestSeveralObjects:
    """Golden files: one writer, several objects; two writers, one after the other."""

    def test_three_objects(self, golden: Path) -> None:
        found = objects(golden / "format" / "three_objects.binary.t7")
        assert len(found) == 3

    def test_one_memo(self, golden: Path) -> None:
        first, second, third, fourth = objects(golden / "format_more" / "multi_onememo.t7")
        assert first[1] == 1
        assert second[1] is first
        assert third is first
        assert fourth == "end"

    def test_appended_by_another_writer(self, golden: Path) -> None:
        first, second = objects(golden / "format_more" / "multi_append.t7")
        assert (dict(first), dict(second)) == ({1: 1}, {1: 2})

    def test_raw_bytes_behind(self, golden: Path) -> None:
        path = golden / "format_more" / "raw_then_obj.t7"
        with pytest.warns(TrailingDataWarning, match="expected a type id from 0 to 8, found 456"):
            assert lua_compat.load(path) is None
        iterator = lua_compat.iter_objects(path)
        assert next(iterator) is None
        assert dict(next(iterator)) == {"hello": 123}
        with pytest.raises(T7Error, match=r"raw_then_obj\.t7, byte 41"):
            next(iterator)

    def test_load_says_that_there_is_more(self, golden: Path) -> None:
        with pytest.warns(TrailingDataWarning, match="only the first of 3 objects"):
            lua_compat.load(golden / "format" / "three_objects.binary.t7")
        with pytest.warns(TrailingDataWarning, match="the data: only the first of 2 objects"):
            lua_compat.loads(lua_compat.dumps(1) + lua_compat.dumps(2))

    def test_a_second_object_that_breaks_off_is_damage(self) -> None:
        with pytest.raises(T7Error, match="at a: expected a string of 100 bytes"):
            lua_compat.loads(lua_compat.dumps(1) + lua_compat.dumps({"a": "x" * 100})[:-50])

    @pytest.mark.parametrize("mode", ["binary", "ascii"])
    def test_more_objects_than_are_looked_at_first(self, tmp_path: Path, mode: str) -> None:
        count = 3 * t7_file.MOST_SAMPLED
        path = tmp_path / "many.t7"
        path.write_bytes(b"".join(lua_compat.dumps({"number": number}, mode) for number in range(count)))
        assert [each["number"] for each in lua_compat.iter_objects(path)] == list(range(count))
        with pytest.warns(TrailingDataWarning, match="many objects"):
            lua_compat.load(path)

    def test_an_error_far_behind(self, tmp_path: Path) -> None:
        path = tmp_path / "many.t7"
        path.write_bytes(lua_compat.dumps(1) * 2 * t7_file.MOST_SAMPLED + b"\x09\0\0\0")
        with pytest.raises(T7Error, match=r"many\.t7, byte 24000: expected a type id"):
            objects(path)

    def test_the_same_object_again_is_no_append(self, tmp_path: Path) -> None:
        """A table, then its number alone: what follows the number is the end of the file."""
        path = tmp_path / "twice.t7"
        path.write_bytes(lua_compat.dumps(["x"]) + struct.pack("<ii", 3, 1))
        first, second = objects(path)
        assert first is second


class TestDetection:
    """Long size and byte order show in whether the file makes sense."""

    @pytest.mark.parametrize("long_size", [4, 8])
    @pytest.mark.parametrize("byte_order", ["little", "big"])
    def test_layouts_are_found(self, long_size: int, byte_order: str) -> None:
        value = {"ints": np.arange(6, dtype="i8").reshape(2, 3), "empty": np.zeros(0), "after": 1}
        data = lua_compat.dumps(value, long_size=long_size, byte_order=byte_order)
        assert lua_compat.equal(lua_compat.loads(data), value)
        assert lua_compat.equal(lua_compat.loads(data, long_size=long_size, byte_order=byte_order), value)

    @pytest.mark.parametrize("value", [np.zeros(4), np.zeros((1, 1, 1, 1, 1)), np.zeros(0), np.zeros(1, "i8")])
    def test_zeros_do_not_deceive(self, value: np.ndarray) -> None:
        for long_size in (4, 8):
            data = lua_compat.dumps([value, value.copy(), None, 0], long_size=long_size)
            found = lua_compat.loads(data)
            assert [each.shape for each in found.to_list()[:2]] == [value.shape] * 2
            assert lua_compat.dumps(found, long_size=long_size) == data

    def test_an_argument_overrides(self) -> None:
        data = lua_compat.dumps(np.arange(3.0), long_size=4)
        with pytest.raises(T7Error):
            lua_compat.loads(data, long_size=8)
        with pytest.raises(T7Error, match="an int"):
            lua_compat.loads(data, mode="ascii")

    def test_damaged_files_are_not_taken_for_another_layout(self, golden: Path) -> None:
        """Cut off anywhere, a file of one tensor is refused."""
        for name in ("t_Float.t7", "t_Float.b32.t7", "t_Float.be.t7", "t_narrow.t7"):
            data = (golden / "format_more" / name).read_bytes()
            for length in range(len(data)):
                with pytest.raises(T7Error):
                    lua_compat.loads(data[:length])

    def test_ascii_needs_no_layout(self) -> None:
        assert lua_compat.loads(b"1\n0.5\n") == 0.5
        assert lua_compat.loads(b"1\n0.5") == 0.5
        assert lua_compat.loads(b"3\n1\n1\n2\n1\n\n5\n1\n")["\n"] is True


class TestAscii:
    """What other writers put in ascii files."""

    @pytest.mark.parametrize(
        ("word", "value"), [("1.#INF", np.inf), ("-1.#INF", -np.inf), ("1e2", 100), ("-0", -0.0), ("inf", np.inf)]
    )
    def test_numbers(self, word: str, value: float) -> None:
        found = lua_compat.loads(f"1\n{word}\n".encode())
        assert struct.pack("d", found) == struct.pack("d", value)

    @pytest.mark.parametrize("word", ["1.#QNAN", "-1.#IND", "nan", "-nan"])
    def test_nan(self, word: str) -> None:
        found = lua_compat.loads(f"1\n{word}\n".encode())
        assert np.isnan(found)
        assert np.signbit(found) == word.startswith("-")

    @pytest.mark.parametrize("word", ["1_0", "0x10", "1,5", "one", "9" * 65])
    def test_what_is_no_number(self, word: str) -> None:
        with pytest.raises(T7Error, match="expected a number"):
            lua_compat.loads(f"1\n{word}\n".encode())

    def test_elements_may_stand_on_several_lines(self) -> None:
        text = b"4\n1\n3\nV 1\n17\ntorch.IntStorage\n".replace(b"17", b"16") + b"4\n1 2\n3\n4\n"
        assert lua_compat.loads(text).tolist() == [1, 2, 3, 4]

    def test_elements_must_fit_their_type(self) -> None:
        text = b"4\n1\n3\nV 1\n18\ntorch.ShortStorage\n1\n70000\n"
        with pytest.raises(T7Error, match="expected an element of type Short, found b'70000'"):
            lua_compat.loads(text)

    def test_a_float_beyond_its_type_is_infinite_as_scanf_has_it(self) -> None:
        text = b"4\n1\n3\nV 1\n18\ntorch.FloatStorage\n1\n1e300\n"
        assert lua_compat.loads(text).tolist() == [np.inf]


class TestMemory:
    """Where the elements are."""

    def test_arrays_can_be_changed_and_are_aligned(self, tmp_path: Path) -> None:
        value = {"x": np.arange(5.0), "flag": "odd", "y": np.arange(100_000, dtype="f4")}
        lua_compat.save(tmp_path / "value.t7", value)
        for found in (lua_compat.load(tmp_path / "value.t7"), lua_compat.loads(lua_compat.dumps(value))):
            for name in ("x", "y"):
                assert found[name].flags.aligned
                found[name][0] = 7
            assert (found["x"][0], found["y"][0]) == (7, 7)

    def test_a_map_is_a_view_of_the_file_and_never_changes_it(self, tmp_path: Path) -> None:
        path = tmp_path / "value.t7"
        lua_compat.save(path, np.arange(5.0))
        found = lua_compat.load(path, mmap=True)
        found[0] = 7
        assert lua_compat.load(path).tolist() == [0, 1, 2, 3, 4]
        assert not found.base.flags.owndata

    def test_large_files_are_read_past_a_map(self, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = golden / "format_more" / "nn_float.t7"
        expected = lua_compat.load(path)
        monkeypatch.setattr(t7_file, "READ_WHOLE", 0)
        monkeypatch.setattr("lua_compat.t7_source.LARGE_STORAGE", 16)
        assert lua_compat.equal(lua_compat.load(path), expected)

    @pytest.mark.parametrize("byte_order", ["little", "big"])
    @pytest.mark.parametrize("code", ["i2", "i8", "f4"])
    def test_large_storages(self, tmp_path: Path, byte_order: str, code: str) -> None:
        value = [np.arange(50_000, dtype=code), np.arange(50_000, dtype=code)[::5]]
        for long_size in (4, 8):
            path = tmp_path / "value.t7"
            lua_compat.save(path, value, byte_order=byte_order, long_size=long_size)
            for mapped in (False, True):
                assert lua_compat.equal(lua_compat.load(path, mmap=mapped), value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(T7Error, match=r"nothing\.t7: cannot be read: No such file"):
        lua_compat.load(tmp_path / "nothing.t7")
    with pytest.raises(T7Error, match="cannot be read: Is a directory"):
        lua_compat.load(tmp_path)
    (tmp_path / "empty.t7").touch()
    for mapped in (False, True):
        with pytest.raises(T7Error, match="found an empty file"):
            lua_compat.load(tmp_path / "empty.t7", mmap=mapped)


def test_memory_views_and_byte_arrays_are_data() -> None:
    data = lua_compat.dumps([1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lua_compat.loads(bytearray(data))[1] == lua_compat.loads(memoryview(data))[1] == 1


@pytest.mark.parametrize("mode", ["binary", "ascii"])
def test_the_number_of_objects_can_be_limited(tmp_path: Path, mode: str) -> None:
    """Six here: the list, two tables in it, one of them twice, a tensor, a function and its upvalues."""
    path = tmp_path / "value.t7"
    first: dict[str, int] = {}
    lua_compat.save(path, [first, first, {}, np.zeros(2), lua_compat.LuaFunction(b"", {}), 1, 2, "a"], mode=mode)
    for count in (6, 7):
        assert len(lua_compat.load(path, max_objects=count)) == 8
    for read in (lua_compat.load, objects):
        with pytest.raises(T7Error, match="at most 5 objects"):
            read(path, max_objects=5)
    with pytest.raises(T7Error, match="at most 5 objects"):
        lua_compat.loads(path.read_bytes(), max_objects=5)


def test_the_limit_is_that_of_all_writers_together() -> None:
    """Ten of 11 objects each: `load` keeps them all until it has found out how the file is encoded."""
    data = 10 * lua_compat.dumps([[index] for index in range(10)])
    with pytest.warns(TrailingDataWarning, match="only the first of 10 objects"):
        lua_compat.loads(data, max_objects=110)
    for count in (10, 11, 109):
        with pytest.raises(T7Error, match=f"at most {count} objects"):
            lua_compat.loads(data, max_objects=count)


def test_tensors_count_as_objects() -> None:
    data = lua_compat.dumps([np.full(3, index, np.float32) for index in range(1000)])
    assert len(lua_compat.loads(data, max_objects=1001)) == 1000
    with pytest.raises(T7Error, match="at most 1000 objects"):
        lua_compat.loads(data, max_objects=1000)


@pytest.mark.parametrize(("path", "message"), [("/dev/zero", "a device, not a file"), ("a\0b", "embedded null byte")])
def test_what_is_no_file(path: str, message: str) -> None:
    with pytest.raises(T7Error, match=f"cannot be read: {message}"):
        lua_compat.load(path)
    with pytest.raises(T7Error, match="cannot be written"):
        lua_compat.save(path.replace("/dev/zero", "/dev"), 1)


def test_what_is_no_name_and_no_bytes(tmp_path: Path) -> None:
    """load(0) would read the standard input, loads(5) five zeros."""
    path = tmp_path / "a.t7"
    lua_compat.save(path, {"a": 1})
    for found in (5, None, {"a": 1}):
        for read in (lua_compat.load, lambda name: list(lua_compat.iter_objects(name))):
            with pytest.raises(T7Error, match=rf"^expected a file's name, found a Python {type(found).__name__}: give"):
                read(found)  # type: ignore[arg-type]
    with (
        open(path, "rb") as file,
        pytest.raises(T7Error, match=r"found a Python BufferedReader: give its bytes to lua_compat\.loads$"),
    ):
        lua_compat.load(file)  # type: ignore[arg-type]
    for data in (5, "a.t7"):
        with pytest.raises(T7Error, match=r"^loads takes a file's bytes, found a Python (int|str); lua_compat\.load"):
            lua_compat.loads(data)  # type: ignore[arg-type]
    assert lua_compat.load(str(path).encode())["a"] == 1  # type: ignore[arg-type]
