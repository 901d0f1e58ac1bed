"""Writing: bytes as Torch7 writes them, Python's own values, sharing, and files replaced as a whole."""

import math
import os
import re
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

import lua_compat
from lua_compat import LuaFunction, LuaTable, T7Error, TorchObject


def test_bytes_of_a_table() -> None:
    expected = (
        b"\x03\0\0\0" b"\x01\0\0\0" b"\x02\0\0\0"  # table, number 1, two entries
        b"\x01\0\0\0" b"\0\0\0\0\0\0\xf0\x3f" b"\x02\0\0\0" b"\x02\0\0\0hi"  # [1] = "hi"
        b"\x02\0\0\0" b"\x01\0\0\0a" b"\x05\0\0\0" b"\x01\0\0\0"  # a = true
    )  # fmt: skip
    assert lua_compat.dumps({1: "hi", "a": True}) == expected


def test_text_of_a_tensor() -> None:
    array = np.array([[1.5, -0.0], [np.inf, -np.nan]], "f4")
    expected = (
        "4\n1\n3\nV 1\n17\ntorch.FloatTensor\n2\n2 2\n2 1\n1\n"
        "4\n2\n3\nV 1\n18\ntorch.FloatStorage\n4\n1.5 -0 inf -nan\n"
    )
    assert lua_compat.dumps(array, "ascii").decode() == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.10000000000000001"),
        (1e300, "1.0000000000000001e+300"),
        (1e15, "1000000000000000"),
        (1e17, "1e+17"),
        (123456789012, "123456789012"),
        (-0.0, "-0"),
        (math.inf, "inf"),
        (-math.nan, "-nan"),
    ],
)
def test_numbers_as_c_prints_them(value: float, text: str) -> None:
    assert lua_compat.dumps(value, "ascii").decode() == f"1\n{text}\n"


def test_four_byte_longs_and_big_endian() -> None:
    data = lua_compat.dumps(np.array([7, -8], "i8"), long_size=4, byte_order="big")
    assert data.endswith(struct.pack(">i", 2) + struct.pack(">ii", 7, -8))
    assert lua_compat.loads(data).tolist() == [7, -8]


def test_python_values_become_lua_values() -> None:
    value = {
        "list": [1, 2.5, None, "x"],
        "tuple": (True, False),
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True)],
        b"bytes": b"\xff",
        True: bytearray(b"ba"),
    }
    found = lua_compat.loads(lua_compat.dumps(value))
    assert dict(found["list"]) == {1: 1, 2: 2.5, 4: "x"}
    assert found["tuple"].to_list() == [True, False]
    assert found["numpy"].to_list() == [0.5, 3, True]
    assert (found["bytes"], found[True]) == (b"\xff", "ba")


def test_sharing_of_python_values_is_kept() -> None:
    inner: dict[str, object] = {}
    inner["self"] = inner
    shared = [1]
    found = lua_compat.loads(lua_compat.dumps([inner, shared, shared]))
    assert found[1]["self"] is found[1]
    assert found[2] is found[3]


def test_unreferenced_writes_every_occurrence() -> None:
    shared = LuaTable(["x"])
    found = lua_compat.loads(lua_compat.dumps([shared, shared], referenced=False))
    assert found[1] is not found[2]
    assert found[2].to_list() == ["x"]
    shared["self"] = shared
    with pytest.raises(T7Error, match="contains itself"):
        lua_compat.dumps(shared, referenced=False)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a Python object has no form in Torch7"),
        ({1, 2}, "a Python set has no form"),
        (2**53 + 1, "has no exact double"),
        (10**400, "has no exact double"),
        ("\ud800", "has no UTF-8 form"),
        (np.float64(1) + np.zeros(()), ""),
        (np.array(3.0), "0-dimensional"),
        (np.ones(2, "c16"), "no tensor of complex128"),
        (np.ones(2, "u2"), "no tensor of uint16"),
        ({math.nan: 1}, "a table key is NaN"),
        ({(1, 2): 1}, "no keys of type tuple"),
        (TorchObject("torch.Generator", b"short"), "5048 bytes"),
        (TorchObject("nn.X", 5), "the payload of nn.X is a table"),
        (TorchObject("nn.X", version=-1), "the version of nn.X is a number from 0 on, not -1"),
        (TorchObject("nn.X", version=1e20), "the version of nn.X is a number from 0 on"),
        (TorchObject("my class"), "'my class' is no class name"),
        (TorchObject(""), "'' is no class name"),
        (TorchObject("V 1"), "'V 1' is no class name"),
        (TorchObject("torch.FloatTensor"), "cannot be a torch.FloatTensor"),
        (TorchObject("tds.AtomicCounter", "seven"), "an int of 64 bits, not 'seven'"),
        (TorchObject("tds.AtomicCounter", 2**63), "an int of 64 bits"),
        (LuaFunction(3), "expected a string, found a Python int: 3"),
        (LuaFunction(b"", tag=3), "tag is 6, 7 or 8, not 3"),
        ({"a": 1, b"a": 2}, "two keys of a Python dict are one key in Lua"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), "a masked array"),
        ([np.ones(2), np.empty(3, "V0")], "no tensor of |V0"),
    ],
)
def test_what_torch7_cannot_have_is_refused(value: object, message: str) -> None:
    if not message:
        assert lua_compat.loads(lua_compat.dumps(value)) == 1  # a NumPy number, not an array
        return
    for mode in ("binary", "ascii"):
        with pytest.raises(T7Error, match=message):
            lua_compat.dumps(value, mode)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (torch.ones(2, 3), "give tensor.detach().cpu().numpy()"),
        (torch.nn.Parameter(torch.ones(2)), "give tensor.detach().cpu().numpy()"),
        (torch.ones(2, 3, dtype=torch.bfloat16), "give tensor.detach().cpu().float().numpy()"),
        (torch.nn.Sequential(torch.nn.Linear(2, 3)), "(Sequential): give lua_compat.nn.from_torch(network)"),
    ],
)
def test_pytorchs_own_are_told_what_to_do(value: object, advice: str, tmp_path: Path) -> None:
    for path, whole in (("", value), ("modules[1].weight: ", {"modules": [{"weight": value}]})):
        with pytest.raises(T7Error, match=re.escape(advice)) as caught:
            lua_compat.save(tmp_path / "w.t7", whole)
        assert f"{path}cannot be written: a torch." in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_advice_works() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0]]))
    assert lua_compat.loads(lua_compat.dumps(weight.detach().cpu().numpy())).tolist() == [[1, -2]]
    rounded = torch.tensor([0.5, 3.0], dtype=torch.bfloat16)
    assert lua_compat.loads(lua_compat.dumps(rounded.detach().cpu().float().numpy())).tolist() == [0.5, 3]


class Lines:
    """Whose repr has several lines."""

    def __repr__(self) -> str:
        return "first\n    second"


def test_a_repr_of_several_lines_becomes_one() -> None:
    with pytest.raises(T7Error, match=r"^a Python Lines has no form in Torch7: first second$"):
        lua_compat.dumps(Lines())
    with pytest.raises(T7Error, match=r"the payload of nn\.X is a table, not first second$"):
        lua_compat.dumps(TorchObject("nn.X", Lines()))


def test_what_names_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        T7Error, match=r"^save takes a file's name and then the value, found a Python dict as the name$"
    ):
        lua_compat.save({"a": 1}, tmp_path / "a.t7")
    with (
        open(tmp_path / "a.t7", "wb") as file,
        pytest.raises(T7Error, match=r"^save takes a file's name, not an open file: write lua_compat\.dumps\(value\)"),
    ):
        lua_compat.save(file, {"a": 1})


def test_a_function_of_2014_that_holds_itself() -> None:
    """Its form has no number to refer to it by: writing went on without end."""
    data = struct.pack("<3i", 6, 1, 3) + b"\x1bLJ" + struct.pack("<2i", 6, 1)
    function = lua_compat.loads(data)
    assert function.upvalues is function
    with pytest.raises(T7Error, match="a function of type 6 holds itself"):
        lua_compat.dumps(function)


def test_the_error_names_the_keys() -> None:
    with pytest.raises(T7Error, match=r"at modules\[1\]\.weight: a Python set"):
        lua_compat.dumps({"modules": [{"weight": {1}}]})


def test_longs_too_large_for_four_bytes() -> None:
    with pytest.raises(T7Error, match="does not fit longs of 4 bytes"):
        lua_compat.dumps(np.array([2**31], "i8"), long_size=4)
    with pytest.raises(T7Error, match="do not fit longs of 4 bytes"):
        lua_compat.dumps(TorchObject("tds.AtomicCounter", 2**31), long_size=4)


@pytest.mark.parametrize("options", [{"mode": "text"}, {"long_size": 2}, {"byte_order": "middle"}])
def test_unknown_options(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"is ('|4)"):
        lua_compat.dumps(1, **options)
    with pytest.raises(ValueError, match=r"is ('|4)"):
        lua_compat.loads(b"\0\0\0\0", **options)


def test_every_payload_form_survives() -> None:
    value = [
        TorchObject("tds.Hash", {1: "one", "two": 2}),
        TorchObject("tds.Vec", ["a", None, 3]),
        TorchObject("tds.AtomicCounter", 7),
        TorchObject("torch.Generator", bytes(5048)),
        TorchObject("nn.GPU", {"modules": LuaTable()}, header={"device": 2}),
        TorchObject("nn.DataParallelTable", {"x": 1}, header={1: 1}),
        TorchObject("nn.X", TorchObject("nn.Y", {"z": 1})),
        LuaFunction(b"\x1bLJ", LuaTable(), tag=6),
        LuaFunction(b"\x1bLJ", LuaTable([1]), tag=7),
        LuaFunction(b"\x1bLJ", LuaTable([LuaTable({"name": "x", "value": 1})])),
    ]
    for mode in ("binary", "ascii"):
        assert lua_compat.equal(lua_compat.loads(lua_compat.dumps(value, mode)), value)


class TestFiles:
    """`save`: atomic, and as careful with the file as a user is."""

    def test_a_failed_write_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "value.t7"
        lua_compat.save(path, "old")
        with pytest.raises(T7Error, match=r"value\.t7, at \[2\]: cannot be written: a Python object"):
            lua_compat.save(path, [np.zeros(1000), object()])
        assert lua_compat.load(path) == "old"
        assert os.listdir(tmp_path) == ["value.t7"]

    def test_permissions_and_links_are_kept(self, tmp_path: Path) -> None:
        target, link = tmp_path / "target.t7", tmp_path / "link.t7"
        lua_compat.save(target, 1)
        target.chmod(0o640)
        link.symlink_to(target)
        lua_compat.save(link, 2)
        assert link.is_symlink()
        assert lua_compat.load(target) == 2
        assert stat.S_IMODE(target.stat().st_mode) == 0o640

    def test_new_files_follow_the_umask(self, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.touch()
        lua_compat.save(tmp_path / "value.t7", 1)
        assert (tmp_path / "value.t7").stat().st_mode == other.stat().st_mode

    def test_a_mapped_file_can_be_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "value.t7"
        lua_compat.save(path, np.arange(5.0))
        mapped = lua_compat.load(path, mmap=True)
        mapped[0] = 7
        lua_compat.save(path, mapped)
        assert mapped.tolist() == lua_compat.load(path).tolist() == [7, 1, 2, 3, 4]

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(T7Error, match=r"cannot be written: No such file"):
            lua_compat.save(tmp_path / "nowhere" / "value.t7", 1)
