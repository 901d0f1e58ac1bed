"""The worked examples of docs/extending.md, done as the page says, on a copy of the packages."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from xnornet_port import XnorModel

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, golden: Path) -> Path:
    """A copy of what main.py needs, to be changed."""
    folder = tmp_path / "checkout"
    for package in ("lua_compat", "xnornet_port"):
        shutil.copytree(ROOT / package, folder / package)  # compiled files as well: they save seconds
    shutil.copy(ROOT / "main.py", folder)
    shutil.copytree(golden / "cache", folder / "cache")
    return folder


def blocks(heading: str) -> list[str]:
    """The code blocks of a section of docs/extending.md, in order."""
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [match[2] for match in BLOCK.finditer(section)]


def python(checkout: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_network_is_a_file_and_a_line(checkout: Path, golden: Path) -> None:
    file, line, command = blocks("A network")
    (checkout / "xnornet_port" / "models" / "smallxnor.py").write_text(file)
    table = checkout / "xnornet_port" / "models" / "__init__.py"
    text = table.read_text()
    assert text.count("NETWORKS = {\n") == 1
    table.write_text(text.replace("NETWORKS = {\n", "NETWORKS = {\n" + line))

    words = command.replace("DATA", str(golden / "imagenet")).replace("CACHE", "cache").split()
    assert words[:2] == ["python", "main.py"]
    quick = ["-batchSize", "8", "-epochSize", "2", "-nEpochs", "1", "-nDonkeys", "0", "-device", "cpu"]
    trained = python(checkout, *words[1:], *quick)
    assert trained.count("nn.BinActiveZ") == 2
    model = next((checkout / "cache").glob("*/*/model_1.t7"))
    tested = python(checkout, *words[1:], *quick, "-testOnly", "-retrain", str(model))
    assert summary(tested) == summary(trained)
    assert "smallxnor" in python(checkout, "main.py", "-help")


def test_a_training_loop_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves differ by 1 in the mean of 32 numbers of deviation 1: of 30,000 pictures one is not clear by chance."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    (code,) = blocks("A training loop")
    exec(code, names)  # noqa: S102
    x, labels = names["pictures"](300)
    network, model, binarizer = names["network"], names["model"], names["binarizer"]
    with torch.no_grad(), binarizer.binary_weights():
        predicted = network(x).argmax(1)
    assert float((predicted == labels).float().mean()) > 0.95
    assert len(binarizer.convolutions) == 2
    for packed in (model, XnorModel.load("mine.xnor.safetensors")):
        same = packed(x).argmax(1) == predicted  # a float sum that is almost 0 may have the other sign
        assert float(same.float().mean()) > 0.98


def test_a_scheme_is_a_class_and_a_line(checkout: Path, golden: Path) -> None:
    scheme, line, command = blocks("A scheme")
    (checkout / "my_schemes.py").write_text(scheme)
    table = checkout / "xnornet_port" / "schemes" / "__init__.py"
    text = table.read_text()
    assert text.count("SCHEMES = {\n") == 1
    table.write_text(text.replace("SCHEMES = {\n", "SCHEMES = {\n" + line))

    words = command.replace("DATA", str(golden / "imagenet")).replace("CACHE", "cache").split()
    quick = ["-batchSize", "8", "-epochSize", "2", "-nEpochs", "1", "-nDonkeys", "0", "-device", "cpu"]
    trained = python(checkout, *words[1:], *quick)
    model = next((checkout / "cache").glob("*/*/model_1.t7"))
    network = words[words.index("-netType") :]
    network.remove("-scheme")
    network.remove("onescale")  # the file knows
    tested = python(checkout, *words[1:6], *network, *quick, "-testOnly", "-retrain", str(model))
    assert summary(tested) == summary(trained)
    (checkout / "look.py").write_text(
        "import torch\nfrom xnornet_port import load_model\nfrom xnornet_port.binarization import Binarizer\n"
        f"net = load_model({str(model)!r})\nbinarizer = Binarizer(net)\n"
        "with binarizer.binary_weights():\n"
        "    print([len(c.weight.abs().unique()) for c in binarizer.convolutions])\n"
    )
    scales = python(checkout, "look.py")
    assert scales == "[1, 1, 1, 1, 1, 1, 1, 1]\n", "one scale for a layer, as the example says"


def summary(console: str) -> list[str]:
    """Loss and accuracy of the test."""
    line = next(line for line in console.splitlines() if "[TESTING SUMMARY]" in line)
    return line.split("\t")[1:]


def test_a_layer_is_a_class_with_a_name(checkout: Path) -> None:
    (layer,) = blocks("A layer")
    (checkout / "soft.py").write_text(layer)
    (checkout / "use.py").write_text(
        "import torch, lua_compat, lua_compat.nn\nfrom soft import BinActiveSoft\n"
        "net = torch.nn.Sequential(torch.nn.Linear(2, 2), BinActiveSoft())\n"
        "lua_compat.save('net.t7', lua_compat.nn.from_torch(net))\n"
        "x = torch.ones(1, 2)\nassert torch.equal(lua_compat.nn.load('net.t7')(x), net(x))\n"
        "print(lua_compat.load('net.t7')['modules'][2].typename)\n"
    )
    assert python(checkout, "use.py") == "nn.BinActiveSoft\n"
