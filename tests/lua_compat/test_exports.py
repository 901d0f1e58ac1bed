"""What `import lua_compat` gives: the names it promises, and no PyTorch."""

import subprocess
import sys

import pytest

import lua_compat


def test_all_names_are_importable() -> None:
    for name in lua_compat.__all__:
        assert getattr(lua_compat, name) is not None
    assert dir(lua_compat) == sorted(lua_compat.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = lua_compat.lode


def test_import_needs_numpy_only() -> None:
    code = (
        "import sys, lua_compat; lua_compat.loads(lua_compat.dumps([1, 2]));"
        "heavy = {'torch', 'scipy', 'PIL', 'rich', 'simplejpeg'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
