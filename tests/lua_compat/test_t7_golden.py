"""The reader and the writer against files that real Torch7 wrote, and against hand-made ones with known contents."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torchfile

import lua_compat
from lua_compat import LuaFunction, LuaTable, T7Error, TorchObject

# Torch7 itself cut longs when it wrote these with 4-byte longs.
CUT_BY_TORCH = {"t_LongBig", "nn_concat"}
# These hold longs that 4 bytes do not hold; we refuse to cut them.
TOO_LONG = CUT_BY_TORCH | {"H_expand_bomb", "long"}
# Torch7 wrote more than the first object.
SEVERAL = {"three_objects", "multi_append", "multi_onememo", "raw_then_obj"}
# Read right, but Torch7 of today writes other bytes: no "V 1" in the oldest files, "V 1.0" from Lua 5.3.
WRITTEN_OTHERWISE = {"unversioned_module", "unversioned_tensor", "version_float_lua53"}
REFUSED = {
    "H_empty": "empty file",
    "H_ndim_huge": "0 to 64 dimensions, found 2147483647",
    "H_nil_key": "table key, found nil",
    "H_offset_end": "within a storage of 10",
    "H_offset_negative": "within a storage of 10",
    "H_pickle": "pickle",
    "H_size_beyond_storage": "within a storage of 10",
    "H_size_negative": "sizes and strides of 0 or more",
    "H_sized_nil_storage": "found nil",
    "H_storage_is_itself": "found another object under number 1",
    "H_storage_is_string": "expected a torch.FloatStorage",
    "H_storage_wrong_type": "found a torch.DoubleStorage",
    "H_stride_huge": "",
    "H_stride_negative": "",
    "H_string_huge": "only 3 bytes are left",
    "H_string_neg": "length of a string, found -1",
    "H_table_huge": "only 0 bytes are left",
    "H_truncated_storage": "only 40 bytes are left",
    "ascii_noautospacing": "expected a .t7 file",
}
READABLE_HOSTILE = {"H_expand_bomb"}  # unusual but legal

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(path for folder in ("format", "format_more", "crafted") for path in (GOLDEN / folder).glob("*.t7"))
READABLE = [path for path in FILES if path.name.split(".")[0] not in REFUSED]


def name_of(path: Path) -> str:
    return path.name.split(".")[0]


def load_first(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lua_compat.TrailingDataWarning)
        return lua_compat.load(path)


def encoding_of(path: Path) -> dict[str, object]:
    """How a golden file is encoded, from its name."""
    suffixes = path.name.split(".")[1:]
    is_short = "b32" in suffixes or name_of(path).endswith(("b32", "long4")) or name_of(path).startswith("b32")
    return {
        "mode": "ascii" if "ascii" in suffixes else "binary",
        "long_size": 4 if is_short else 8,
        "byte_order": "big" if "be" in suffixes else "little",
    }


def test_the_golden_files_are_there() -> None:
    assert len(READABLE) > 380
    assert {name_of(path) for path in FILES} >= set(REFUSED)


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.name)
def test_reads_and_writes_every_file_back(path: Path) -> None:
    if name_of(path) in SEVERAL | WRITTEN_OTHERWISE:
        return  # the first have tests of their own, the others are in CRAFTED
    encoding = encoding_of(path)
    value = lua_compat.load(path)
    assert lua_compat.dumps(value, **encoding) == path.read_bytes()
    assert lua_compat.equal(lua_compat.load(path, **encoding), value)


@pytest.mark.parametrize("name", sorted({f"{path.parent.name}/{name_of(path)}" for path in READABLE}))
def test_all_encodings_of_a_value_read_the_same(name: str) -> None:
    folder, name = name.split("/")
    same = [path for path in READABLE if (path.parent.name, name_of(path)) == (folder, name)]
    paths = [path for path in same if ".unref." not in path.name]
    for path in paths[1:]:
        if name in CUT_BY_TORCH and "b32" in path.name:
            continue
        found = list(lua_compat.differences(load_first(paths[0]), load_first(path)))
        assert not found, f"{paths[0].name} and {path.name}: {found[0]}"


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.name)
def test_every_value_survives_every_encoding(path: Path) -> None:
    value = load_first(path)
    for mode, long_size, byte_order in [
        ("binary", 8, "little"),
        ("binary", 8, "big"),
        ("binary", 4, "little"),
        ("binary", 4, "big"),
        ("ascii", 8, "little"),
    ]:
        if long_size == 4 and name_of(path) in TOO_LONG and "b32" not in path.name:
            with pytest.raises(T7Error, match="fit longs of 4 bytes"):
                lua_compat.dumps(value, mode, long_size=4, byte_order=byte_order)
            continue
        data = lua_compat.dumps(value, mode, long_size=long_size, byte_order=byte_order)
        found = list(lua_compat.differences(value, lua_compat.loads(data)))
        assert not found, f"{mode}, {long_size}, {byte_order}: {found[0]}"


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.name)
def test_a_memory_map_reads_the_same(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lua_compat.TrailingDataWarning)
        assert lua_compat.equal(lua_compat.load(path, mmap=True), lua_compat.load(path))


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_refuses(name: str, message: str) -> None:
    (path,) = (path for path in FILES if name_of(path) == name)
    with pytest.raises(T7Error) as caught:
        lua_compat.load(path)
    assert message in str(caught.value)
    assert path.name in str(caught.value)
    assert "byte " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_hostile_file_is_accounted_for() -> None:
    hostile = {path.stem for path in (GOLDEN / "crafted").glob("H_*.t7")}
    assert hostile == {name for name in REFUSED if name.startswith("H_")} | READABLE_HOSTILE


# What the hand-made files hold, from crafted/expected.json: name -> check of the value.
def is_tensor(value: object, typename: str, elements: list[object]) -> bool:
    return isinstance(value, lua_compat.Tensor) and value.typename == typename and value.tolist() == elements


CRAFTED = {
    "cuda_CudaLong": lambda v: is_tensor(v["t"], "torch.CudaLongTensor", [1, -2, 3]) and v["after"] == 1,
    "half": lambda v: is_tensor(v["t"], "torch.HalfTensor", [1, -2, 0.5]) and v["after"] == 1,
    "b32_tensor": lambda v: is_tensor(v["t"], "torch.FloatTensor", [[1, 2], [3, 4]]) and v["after"] == 1,
    "b32_longtensor": lambda v: is_tensor(v["t"], "torch.LongTensor", [7, -8]) and v["after"] == 1,
    "ref_tensor": lambda v: v["a"] is v["b"],
    "key_1_and_true": lambda v: (v[1], v[True], v[2], len(v)) == ("one", "true", "two", 3),
    "key_tensor": lambda v: isinstance(next(iter(v)), lua_compat.Tensor) and v[next(iter(v))] is not None,
    "list_out_of_order": lambda v: v.to_list() == ["a", "b"],
    "long_string": lambda v: v == "x" * 70000,
    "version_float_lua53": lambda v: is_tensor(v, "torch.FloatTensor", [1, 2]),
    "unversioned_tensor": lambda v: is_tensor(v["t"], "torch.FloatTensor", [1, 2]) and v["after"] == 1,
    "unversioned_module": lambda v: (v.typename, v.version, len(v)) == ("nn.Linear", 0, 0),
    "tds_hash_oldname": lambda v: (v["h"].typename, v["h"]["k"], v["after"]) == ("tds_hash", 2, 1),
    "tds_vec_b32": lambda v: v["v"].payload == ["a", 5] and v["after"] == 1,
    "tds_hash_b32": lambda v: v["v"][1] == "one" and v["after"] == 1,
    "func7": lambda v: isinstance(v["f"], LuaFunction) and v["f"].tag == 7 and v["after"] == 1,
    "bn_v1_running_std": lambda v: v.version == 1 and v["running_std"].tolist() == [2, 4],
    "nn_DataParallelTable_v3": lambda v: isinstance(v["m"].header, LuaTable) and v["m"]["dimension"] == 1,
    "obj_payload_is_object": lambda v: (v["m"].typename, type(v["m"].payload)) == ("A", TorchObject),
    "H_expand_bomb": lambda v: v.size == 2**40 and v.strides == (0,) and v.base.size < 10,
}


@pytest.mark.parametrize(("name", "holds"), CRAFTED.items())
def test_hand_made_files_hold_what_they_should(golden: Path, name: str, holds: object) -> None:
    assert holds(lua_compat.load(golden / "crafted" / f"{name}.t7"))


def test_every_hand_made_file_has_a_check(golden: Path) -> None:
    described = json.loads((golden / "crafted" / "expected.json").read_text())
    too_large = {"H_deep_100000"}  # made in test_t7_reader
    assert set(described) == set(CRAFTED) | {name for name in REFUSED if name.startswith("H_")} | too_large


def plain(value: object) -> object:
    """A value of either reader in one form: tables as dicts, strings as bytes."""
    if isinstance(value, (LuaTable, dict)):
        return {plain(key): plain(item) for key, item in value.items()}
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["list", "nested", "string", "utf8_string", "int", "float", "huge", "true"])
def test_torchfile_reads_the_same_from_what_we_write(golden: Path, tmp_path: Path, name: str) -> None:
    ours = lua_compat.load(golden / "format" / f"{name}.binary.t7")
    lua_compat.save(tmp_path / "copy.t7", ours)
    theirs = torchfile.load(str(tmp_path / "copy.t7"), use_list_heuristic=False)
    assert plain(theirs) == plain(ours)


@pytest.mark.parametrize(
    "name", ["byte", "char", "short", "int_tensor", "long", "float_tensor", "double_tensor", "narrowed", "transposed"]
)
def test_torchfile_reads_our_tensors(golden: Path, tmp_path: Path, name: str) -> None:
    ours = lua_compat.load(golden / "format" / f"{name}.binary.t7")
    lua_compat.save(tmp_path / "copy.t7", ours)
    for path in (golden / "format" / f"{name}.binary.t7", tmp_path / "copy.t7"):
        theirs = torchfile.load(str(path), use_list_heuristic=False)
        if isinstance(ours, lua_compat.Tensor):
            assert theirs.dtype == ours.dtype
            assert np.array_equal(theirs, ours)
        else:
            for key, tensor in ours.items():
                assert np.array_equal(theirs[plain(key)], tensor)


def disagreement(ours: object, theirs: object) -> str:
    """Where torchfile, an independent reader, read something else; "" where both agree."""
    waiting = [("", ours, theirs)]
    seen: set[int] = set()
    while waiting:
        keys, left, right = waiting.pop()
        if isinstance(left, (LuaTable, TorchObject)):
            if id(left) in seen:
                continue
            seen.add(id(left))
            fields = right._obj if isinstance(left, TorchObject) else right
            if isinstance(left, TorchObject) and left.typename.encode() != right.torch_typename():
                return f"{keys}: {left.typename}"
            if {plain(key) for key in left} != set(fields):
                return f"{keys}: other keys"
            waiting += [(f"{keys}.{key}", left[key], fields[plain(key)]) for key in left]
        elif isinstance(left, np.ndarray):
            if left.size and not (left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)):
                return f"{keys}: other elements"
        elif plain(left) != right and left == left:
            return f"{keys}: {left!r} against {right!r}"
    return ""


def test_torchfile_agrees_on_whole_networks_and_caches(shared: Path) -> None:
    folders = ("models", "cache", "runs/bwn_sgd")
    paths = [path for folder in folders for path in sorted((shared / "golden" / folder).glob("*.t7"))]
    assert len(paths) > 5
    for path in paths:
        theirs = torchfile.load(str(path), use_list_heuristic=False)
        assert disagreement(lua_compat.load(path), theirs) == "", path.name
