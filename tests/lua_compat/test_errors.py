"""The exception tree: complete, as drawn, and every error says where."""

import inspect
from pathlib import Path

import pytest

from lua_compat import errors
from lua_compat.errors import LuaCompatError, T7Error


def test_every_error_is_exported_and_drawn_in_the_docstring() -> None:
    classes = {name for name, item in vars(errors).items() if inspect.isclass(item) and issubclass(item, Exception)}
    assert classes == set(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in classes)
    assert all(issubclass(getattr(errors, name), LuaCompatError) for name in classes)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "expected a table"),
        ({"file": "model.t7"}, "model.t7: expected a table"),
        ({"file": Path("a/model.t7"), "position": 0}, "a/model.t7, byte 0: expected a table"),
        ({"position": 12, "keys": "modules[1].weight"}, "byte 12, at modules[1].weight: expected a table"),
        ({"file": "m", "position": 12, "keys": "x"}, "m, byte 12, at x: expected a table"),
    ],
)
def test_t7_error_names_the_place(place: dict[str, object], text: str) -> None:
    error = T7Error("expected a table", **place)
    assert str(error) == text
    assert error.problem == "expected a table"
    assert (error.position, error.keys) == (place.get("position"), place.get("keys", ""))
