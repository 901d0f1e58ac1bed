"""States on the disk: read back to the bit, kept in twos, and what happens to damaged ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xnornet_port.errors import XnorNetError
from xnornet_port.state_files import drop_unfinished_files, read_newest_state, size_of_states, write_state

TENSORS = {
    "a": torch.tensor([[1.5, -math.pi], [0.0, float("nan")]]),
    "count": torch.tensor(7),
    "empty": torch.empty(0, 3),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
    "strided": torch.arange(6.0).view(2, 3).t(),
}
FACTS = {"epoch": 3, "seconds": 0.1 + 0.2, "logs": {"train.log": "a\tb\n"}}


def test_read_back_to_the_bit(tmp_path: Path) -> None:
    path = write_state(tmp_path, 3, 40, TENSORS, FACTS)
    stored = read_newest_state(tmp_path, pytest.fail)
    assert stored is not None
    assert stored.path == path == tmp_path / "state_3_40.json"
    assert {name: stored.facts[name] for name in FACTS} == FACTS
    assert stored.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert stored.tensors[name].dtype == tensor.dtype
        assert torch.equal(stored.tensors[name].nan_to_num(99), tensor.nan_to_num(99)), name


def test_safetensors_own_reader_takes_the_file(tmp_path: Path) -> None:
    write_state(tmp_path, 1, 0, TENSORS, FACTS)
    torch.testing.assert_close(load_file(tmp_path / "state_1_0.safetensors")["strided"], TENSORS["strided"])


def test_the_last_two_are_kept_by_number(tmp_path: Path) -> None:
    for epoch, batch in ((1, 2), (1, 10), (2, 0), (10, 0)):
        write_state(tmp_path, epoch, batch, TENSORS, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"state_{place}.{kind}" for place in ("10_0", "2_0") for kind in ("json", "safetensors")
    ]


def test_a_users_file_with_a_like_name_stays(tmp_path: Path) -> None:
    """`cache_tools convert model_1.t7 state_dict.safetensors` into the run's folder, while the run goes on."""
    for name in ("state_dict.safetensors", "state_1_2_mine.safetensors"):
        (tmp_path / name).write_bytes(b"mine")
    for batch in (1, 2, 3):
        write_state(tmp_path, 1, batch, TENSORS, FACTS)
    states = [path for path in tmp_path.iterdir() if path.stem in ("state_1_2", "state_1_3")]
    assert len(states) == 4
    assert size_of_states(tmp_path) == sum(path.stat().st_size for path in states)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"state_dict.safetensors", "state_1_2_mine.safetensors", "state_1_3.safetensors"} <= names
    assert "state_1_1.safetensors" not in names


def test_nothing_is_there(tmp_path: Path) -> None:
    assert read_newest_state(tmp_path, pytest.fail) is None
    (tmp_path / "state_1_5.safetensors").write_bytes(b"without its JSON it is no state")
    assert read_newest_state(tmp_path, pytest.fail) is None


def test_a_damaged_one_falls_back_to_the_one_before_with_a_line(tmp_path: Path) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1])

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)

    def edit(path: Path) -> None:
        path.write_text(path.read_text().replace('"epoch": 3', '"epoch": 4'))

    def other_format(path: Path) -> None:
        path.write_text(json.dumps({"checksum": "", "state": []}))

    damages = [
        (".safetensors", cut, "has another size"),
        (".safetensors", flip, "checksum of state_3_9.safetensors differs"),
        (".safetensors", Path.unlink, "No such file"),
        (".json", cut, "damaged"),
        (".json", edit, "its checksum differs"),
        (".json", other_format, "damaged"),
    ]
    for suffix, damage, reason in damages:
        write_state(tmp_path, 3, 8, TENSORS, FACTS)
        write_state(tmp_path, 3, 9, TENSORS, FACTS)
        damage(tmp_path / f"state_3_9{suffix}")
        lines: list[str] = []
        stored = read_newest_state(tmp_path, lines.append)
        assert stored is not None
        assert stored.path.name == "state_3_8.json"
        assert len(lines) == 1
        assert "state_3_9.json: this state is damaged" in lines[0]
        assert reason in lines[0]
        assert lines[0].endswith("taking the one before")


def test_none_is_whole(tmp_path: Path) -> None:
    write_state(tmp_path, 3, 9, TENSORS, FACTS).write_text("{")
    with pytest.raises(XnorNetError, match="none of its 1 states is whole"):
        read_newest_state(tmp_path, lambda line: None)


def test_a_write_that_fails_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of the tensors: nothing of the new state is left."""
    write_state(tmp_path, 1, 1, TENSORS, FACTS)
    before = sorted(tmp_path.iterdir())

    def full(tensor: torch.Tensor) -> memoryview:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xnornet_port.state_files._bytes_of", full)
    with pytest.raises(OSError, match="No space left"):
        write_state(tmp_path, 1, 2, TENSORS, FACTS)
    assert sorted(tmp_path.iterdir()) == before
    assert read_newest_state(tmp_path, pytest.fail) is not None


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    left = [".model_1.t7.0123456789ab.tmp", ".state_1_2.json.aaaaaaaaaaaa.tmp", ".options.json.bbbbbbbbbbbb.tmp"]
    others = ["model_1.t7", ".my_notes.tmp", "state_1_2.json"]
    for name in left + others:
        (tmp_path / name).touch()
    drop_unfinished_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
