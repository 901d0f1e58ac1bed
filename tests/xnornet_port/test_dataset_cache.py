"""Cache files against those real Torch7 wrote, and files that are none."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchfile

import lua_compat
from lua_compat import Generator, LuaTable, TorchObject
from xnornet_port.dataset import scan_folder
from xnornet_port.dataset_cache import (
    read_dataset,
    read_statistics,
    write_classes,
    write_dataset,
    write_statistics,
)
from xnornet_port.errors import XnorNetError
from xnornet_port.preprocessing import ChannelStatistics

CLASSES = ("n01440764", "n07753592", "n03000684", "n09246464", "n02119789")  # as that file system gave them


def described(value: Any) -> Any:
    """A value from a .t7 file as plain data with Torch7's type names, for comparison with ==."""
    if isinstance(value, TorchObject):
        return (value.typename, value.version, described(value.fields))
    if isinstance(value, LuaTable):
        return {key: described(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return (value.typename, value.shape, value.tolist())
    return value


def shared_tables(fields: TorchObject) -> set[tuple[str, str]]:
    """Pairs of fields that are one and the same table."""
    tables = [(name, value) for name, value in fields.items() if isinstance(value, LuaTable)]
    return {(a, b) for a, one in tables for b, other in tables if a < b and one is other}


def test_reads_real_torch7s_training_cache(golden: Path) -> None:
    train = read_dataset(str(golden / "cache" / "trainCache.t7"))
    assert train.folder == "/mnt/raid00/data/imagenet2012/train"
    assert train.classes == CLASSES
    assert len(train) == 50
    assert train.path(1).startswith(b"/mnt/raid00/data/imagenet2012/train/n01440764/n01440764_")
    assert train.image_class.tolist() == [number for number in range(1, 6) for _ in range(10)]
    assert train.sample_list[1].tolist() == list(range(11, 21))


def test_reads_real_torch7s_test_cache(golden: Path) -> None:
    test = read_dataset(str(golden / "cache" / "testCache.t7"))
    assert (test.classes, len(test)) == (CLASSES, 30)
    assert test.path(1) == b"/mnt/raid00/data/imagenet2012/val/n01440764/ILSVRC2012_val_00000006.JPEG"
    assert (test.label(6), test.label(7)) == (1, 2)
    assert [len(numbers) for numbers in test.sample_list] == [0] * 5  # split = 0: none to train with


def test_written_training_cache_is_real_torch7s_field_for_field(golden: Path, tmp_path: Path) -> None:
    original = golden / "cache" / "trainCache.t7"
    write_dataset(str(tmp_path / "train.t7"), read_dataset(str(original)), image_size=256, crop_size=224)
    ours, theirs = lua_compat.load(tmp_path / "train.t7"), lua_compat.load(original)
    assert described(ours) == described(theirs)
    assert shared_tables(ours) == shared_tables(theirs) == {("classList", "classListSample")}


def test_written_test_cache_is_real_torch7s_field_for_field(golden: Path, tmp_path: Path) -> None:
    """Even the split is: the original drew it right after manualSeed(2)."""
    original = golden / "cache" / "testCache.t7"
    write_dataset(
        str(tmp_path / "test.t7"),
        read_dataset(str(original)),
        image_size=256,
        crop_size=224,
        split=0,
        force_classes=CLASSES,
        stream=Generator(2),
    )
    ours, theirs = lua_compat.load(tmp_path / "test.t7"), lua_compat.load(original)
    assert described(ours) == described(theirs)
    assert shared_tables(ours) == shared_tables(theirs) == {("classListSample", "classListTrain")}


def test_same_tensors_on_storages_of_their_own(golden: Path, tmp_path: Path) -> None:
    """As long as the original's file: no tensor drags along a larger storage. Only the order of fields differs."""
    for name, extra in (
        ("trainCache.t7", {}),
        ("testCache.t7", {"split": 0, "force_classes": CLASSES, "stream": Generator(2)}),
    ):
        original = golden / "cache" / name
        write_dataset(str(tmp_path / name), read_dataset(str(original)), 256, 224, **extra)
        assert (tmp_path / name).stat().st_size == original.stat().st_size


def test_torchfile_reads_what_is_written(golden: Path, tmp_path: Path) -> None:
    """An independent reader of the format."""
    dataset = scan_folder(str(golden / "imagenet" / "train"))
    write_dataset(str(tmp_path / "train.t7"), dataset, 256, 224)
    read = torchfile.load(str(tmp_path / "train.t7"), use_list_heuristic=False)
    assert read.torch_typename() == b"dataLoader"
    assert read[b"classes"][2] == b"n02119789"
    np.testing.assert_array_equal(read[b"imagePath"], dataset.image_path)
    assert dict(read[b"sampleSize"]) == {1: 3, 2: 224, 3: 224}


def test_split_of_80_and_20(golden: Path, tmp_path: Path) -> None:
    """floor(10 * 80 / 100 + 0.5) = 8 of each class train, the others test, none twice."""
    dataset = scan_folder(str(golden / "imagenet" / "train"))
    write_dataset(str(tmp_path / "cache.t7"), dataset, 256, 224, split=80, stream=Generator(1))
    fields = lua_compat.load(tmp_path / "cache.t7")
    for number in range(1, 6):
        training, testing = fields["classListTrain"][number].tolist(), fields["classListTest"][number].tolist()
        assert (len(training), len(testing)) == (8, 2)
        assert sorted(training + testing) == dataset.class_list[number - 1].tolist()
    assert fields["testIndicesSize"] == len(fields["testIndices"]) == 10
    read = read_dataset(str(tmp_path / "cache.t7"))
    assert [len(numbers) for numbers in read.sample_list] == [8] * 5
    assert [len(numbers) for numbers in read.class_list] == [10] * 5


def test_odd_names_survive(tmp_path: Path) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    for name in (b"a b\n", b"\xff\xfe"):
        os.makedirs(os.path.join(folder, name))
        with open(os.path.join(folder, name, b"\xe9 \n.jpg"), "wb"):
            pass
    dataset = scan_folder(os.fsdecode(folder))
    write_dataset(str(tmp_path / "cache.t7"), dataset, 256, 224)
    read = read_dataset(str(tmp_path / "cache.t7"))
    assert (read.folder, read.classes) == (dataset.folder, dataset.classes)
    assert read.path(2) == folder + b"/\xff\xfe/\xe9 \n.jpg"


Change = Callable[[TorchObject], None]


def put(field: str, value: Any) -> Change:
    return lambda fields: fields.__setitem__(field, value)


def numbers(*values: int) -> lua_compat.Tensor:
    return lua_compat.tensor(np.array(values, dtype=np.int64))


DAMAGES: list[tuple[Change, str]] = [
    (put("imagePath", None), "imagePath is not a matrix of characters"),
    (put("imagePath", "text"), "imagePath is not a matrix of characters"),
    (put("imagePath", lua_compat.tensor(np.zeros((50, 63)))), "imagePath is not a matrix of characters"),
    (put("imagePath", lua_compat.tensor(np.zeros((50, 0), np.int8))), "imagePath is not a matrix of characters"),
    (put("imagePath", lua_compat.tensor(np.ones((50, 63), np.int8))), "imagePath has a path without an end"),
    (put("imagePath", lua_compat.tensor(np.zeros((49, 63), np.int8))), "imageClass has 50 entries for 49 pictures"),
    (put("classes", LuaTable()), "classes is not a list of names"),
    (put("classes", LuaTable([1, 2, 3, 4, 5])), "classes is not a list of names"),
    (put("classes", LuaTable({1: "a", 3: "b"})), "classes is not a list of names"),
    (put("classes", LuaTable(["a", "b", "c", "d", "a"])), "classes has a name twice"),
    (put("paths", None), "paths is not a list of names"),
    (put("imageClass", lua_compat.tensor(np.ones(50))), "imageClass is not a vector of whole numbers"),
    (put("imageClass", numbers(*[6] * 50)), "imageClass goes from 6 to 6, expected 1 to 5"),
    (put("imageClass", numbers(*[0] * 50)), "imageClass goes from 0 to 0, expected 1 to 5"),
    (put("classList", LuaTable([numbers(1)])), "classList is not a list with an entry for each of the 5 classes"),
    (put("classListSample", None), "classListSample is not a list"),
    (put("classListSample", LuaTable([numbers(51)] * 5)), r"classListSample\[1\] goes from 51 to 51, expected 1 to 50"),
    (put("classListSample", LuaTable([numbers(1)] * 5)), r"classListSample\[2\] has pictures that imageClass puts in"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_caches(golden: Path, tmp_path: Path, damage: Change, message: str) -> None:
    fields = lua_compat.load(golden / "cache" / "trainCache.t7")
    damage(fields)
    file = str(tmp_path / "trainCache.t7")
    lua_compat.save(file, fields)
    with pytest.raises(XnorNetError, match=message) as caught:
        read_dataset(file)
    assert str(caught.value).startswith(file)
    assert "delete it" in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG = (
    None, True, 7, 2.5, "text", b"\xff", LuaTable(), LuaTable([1, 2]), LuaTable([LuaTable()]), LuaTable({"a": 1}),
    TorchObject("nn.Linear", {}), lua_compat.LuaFunction(b"code", None), lua_compat.tensor(np.zeros((2, 2))),
    lua_compat.tensor(np.zeros(50, np.int8)), lua_compat.tensor(np.full(50, 2**62)), np.zeros(3, np.float32),
)  # fmt: skip


@pytest.mark.parametrize("field", ["imagePath", "imageClass", "classes", "paths", "classList", "classListSample"])
def test_every_field_of_a_wrong_type_is_named(golden: Path, tmp_path: Path, field: str) -> None:
    """In the object, or as an entry of the lists; a line of text that begins with the file and has the field's name."""
    file = str(tmp_path / "trainCache.t7")
    for value in WRONG:
        for is_entry in (False, True):
            fields = lua_compat.load(golden / "cache" / "trainCache.t7")
            if is_entry and isinstance(fields[field], LuaTable):
                if field in ("classes", "paths") and isinstance(value, str | bytes):
                    continue  # a name as good as any
                entries = fields[field].to_list()
                fields[field] = LuaTable([value, *entries[1:]])
            else:
                fields[field] = value
            lua_compat.save(file, fields)
            with pytest.raises(XnorNetError, match=field) as caught:
                read_dataset(file)
            assert str(caught.value).startswith(file)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"this is text\n", b"PK\x03\x04zip", b"\x04\x00\x00\x00\x01\x00"])
def test_files_that_are_no_t7(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "some.t7"
    file.write_bytes(content)
    for read in (read_dataset, read_statistics):
        with pytest.raises(XnorNetError, match=r"some\.t7.*delete it") as caught:
            read(str(file))
        assert "\n" not in str(caught.value)


def test_other_objects_are_refused(golden: Path) -> None:
    with pytest.raises(XnorNetError, match=r"meanstdCache\.t7: expected a dataLoader object.*found LuaTable"):
        read_dataset(str(golden / "cache" / "meanstdCache.t7"))
    with pytest.raises(XnorNetError, match=r"trainCache\.t7: expected a table with mean and std, found TorchObject"):
        read_statistics(str(golden / "cache" / "trainCache.t7"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(XnorNetError, match=r"nothing\.t7: cannot be read \(No such file or directory\)$"):
        read_dataset(str(tmp_path / "nothing.t7"))


def test_statistics_written_and_read(golden: Path, tmp_path: Path) -> None:
    statistics = read_statistics(str(golden / "cache" / "meanstdCache.t7"))
    assert statistics.mean == (0.3565039688480867, 0.3604921302274145, 0.338880709439346)  # torchfile's reading
    assert statistics.std == (0.21531067850228106, 0.20676371170146812, 0.19039824155327986)
    write_statistics(str(tmp_path / "meanstd.t7"), statistics)
    assert read_statistics(str(tmp_path / "meanstd.t7")) == statistics
    assert described(lua_compat.load(tmp_path / "meanstd.t7")) == described(
        lua_compat.load(golden / "cache" / "meanstdCache.t7")
    )


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.1, 0.2], [1, 1, 1], "mean is not three numbers"),
        ([0.1, 0.2, "x"], [1, 1, 1], "mean is not three numbers"),
        ([0.1, 0.2, 0.3], [1, 1, float("nan")], "std is not three numbers"),
        ([0.1, 0.2, 0.3], None, "std is not three numbers"),
        ([0.1, 0.2, 0.3], [1, 0, 1], r"std is \(1.0, 0.0, 1.0\), expected three numbers above 0"),
    ],
)
def test_unusable_statistics(tmp_path: Path, mean: Any, std: Any, message: str) -> None:
    lua_compat.save(tmp_path / "meanstd.t7", {"mean": mean, "std": std})
    with pytest.raises(XnorNetError, match=message):
        read_statistics(str(tmp_path / "meanstd.t7"))


def test_classes_file_is_real_torch7s(golden: Path, tmp_path: Path) -> None:
    write_classes(str(tmp_path / "classes.t7"), CLASSES)
    assert (tmp_path / "classes.t7").read_bytes() == (golden / "runs" / "bwn_sgd" / "classes.t7").read_bytes()


def test_files_that_cannot_be_written(golden: Path, tmp_path: Path) -> None:
    dataset = read_dataset(str(golden / "cache" / "trainCache.t7"))
    target = tmp_path / "taken" / "trainCache.t7"
    target.mkdir(parents=True)
    with pytest.raises(XnorNetError, match=r"trainCache\.t7: cannot be written"):
        write_dataset(str(target), dataset, 256, 224)
    with pytest.raises(XnorNetError, match=r"^[^:]*/meanstd\.t7: cannot be written: No such file or directory$"):
        write_statistics(str(tmp_path / "nowhere" / "meanstd.t7"), ChannelStatistics((0, 0, 0), (1, 1, 1)))
    assert os.listdir(tmp_path / "taken") == ["trainCache.t7"]  # nothing left lying about


def test_split_needs_a_stream(golden: Path, tmp_path: Path) -> None:
    dataset = replace(read_dataset(str(golden / "cache" / "trainCache.t7")), folder="x")
    with pytest.raises(ValueError, match="random stream"):
        write_dataset(str(tmp_path / "x.t7"), dataset, 256, 224, split=50)
