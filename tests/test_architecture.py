"""The rules of design.md that a machine can check: who imports whom, what is public, what the docs name."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("lua_compat", "xnornet_port", "cache_tools")
MAY_IMPORT = {
    "lua_compat": {"lua_compat"},
    "xnornet_port": {"lua_compat", "xnornet_port"},
    "cache_tools": {"lua_compat", "xnornet_port", "cache_tools"},
}
# Heavy or optional packages that are imported by what uses them, not by the packages as a whole.
NEEDS_TORCH = ("lua_compat/nn/", "lua_compat/optim.py", "xnornet_port/", "cache_tools/")


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages imported anywhere in a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    for path in sources(package):
        foreign = (imported(path) & set(PACKAGES)) - MAY_IMPORT[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


def test_only_the_way_in_sees_options() -> None:
    """Below run.py everything is an explicit argument; record.py writes the options down and reads them again."""
    seeing = {
        str(path.relative_to(ROOT / "xnornet_port"))
        for path in sources("xnornet_port")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "Options")
        or (isinstance(node, ast.ImportFrom | ast.Import) and any(a.name == "Options" for a in node.names))
        or (isinstance(node, ast.Attribute) and node.attr == "Options")
    }
    assert seeing <= {"cli.py", "options.py", "record.py", "run.py"}


def test_no_function_of_a_run_takes_more_than_seven_arguments() -> None:
    """What belongs together is one dataclass (TrainingPlan, Learner, Tester)."""
    names = ("run", "training", "passes", "train", "evaluate", "run_state", "record", "parallel", "metrics", "transfer")
    for name in names:
        for node in ast.walk(ast.parse((ROOT / "xnornet_port" / f"{name}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                n_arguments = sum(len(part) for part in (node.args.posonlyargs, node.args.args, node.args.kwonlyargs))
                assert n_arguments - (node.args.args[:1] != [] and node.args.args[0].arg == "self") <= 7, node.name


def test_what_is_printed_is_printed_in_one_place() -> None:
    """Report has a run's lines, cli.py the help, standard_streams.py both streams and `tell` for errors and remarks.

    Everyone else is given something to say them to.
    """
    printing = {
        str(path.relative_to(ROOT))
        for package in ("lua_compat", "xnornet_port")
        for path in sources(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and ast.unparse(node.value) == "sys")
    }
    assert printing == {f"xnornet_port/{name}.py" for name in ("cli", "report", "standard_streams")}


def test_torch_is_imported_only_where_it_may_be() -> None:
    for path in sources("lua_compat"):
        name = str(path.relative_to(ROOT))
        if "torch" in imported(path):
            assert name.startswith(NEEDS_TORCH), name


def test_import_lua_compat_needs_numpy_only() -> None:
    code = "import sys, lua_compat; print(*sorted({'torch', 'PIL', 'rich', 'scipy', 'simplejpeg'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_no_global_exec_or_pickle(package: str) -> None:
    for path in sources(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.Global | ast.Assert), where
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("exec", "eval"), where
        assert not imported(path) & {"pickle", "marshal", "shelve"}, path


@pytest.mark.parametrize("package", ["lua_compat", "lua_compat.nn", "lua_compat.image", "xnornet_port"])
def test_everything_in_all_is_there(package: str) -> None:
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


def test_every_file_has_a_name_for_any_system() -> None:
    """Windows has no colons in names; a run's folder has, and would be found here if it were added by mistake."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a checkout, or no git")
    names = listed.stdout.split("\0")
    assert "main.py" in names
    assert [name for name in names if re.search(r'[<>:"|?*\\]|(^|/)-', name)] == []


def test_the_port_map_names_what_exists() -> None:
    """Every `lua_compat...` and `xnornet_port...` name in docs/port_map.md can be imported."""
    text = (ROOT / "docs" / "port_map.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`((?:lua_compat|xnornet_port|cache_tools)(?:\.\w+)+)`", text))
    assert len(names) > 40
    missing = sorted(name for name in names if not can_import(name))
    assert not missing


def can_import(name: str) -> bool:
    """Whether a dotted name is a module or an attribute (of an attribute ...) of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize(("page", "least"), [("differences", 30), ("reliability", 15)])
def test_every_difference_and_fault_names_a_test_that_exists(page: str, least: int) -> None:
    """Each row of the page ends in `tests/...::name`, and that function is there."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    rows = [
        line
        for line in text.splitlines()
        if line.startswith("|") and not re.match(r"\|\s*(#|-|what (is|happens))", line)
    ]
    assert len(rows) > least
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert tests, f"no test in: {row[:100]}"
        for file, function in tests:
            path = ROOT / file
            assert path.is_file(), f"{file} in: {row[:100]}"
            assert f"def {function}(" in path.read_text(encoding="utf-8"), f"{file}::{function}"
