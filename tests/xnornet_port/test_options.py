"""Options against the console of the original's runs (golden/runs/*/stdout.log), and every check of a value."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lua_compat.cmdline import HelpRequested
from lua_compat.errors import CmdLineError
from lua_compat.lua_format import table_text
from xnornet_port.errors import XnorNetError
from xnornet_port.options import (
    NET_TYPES,
    ORIGINAL_OPTIONS,
    PORT_OPTIONS,
    Options,
    help_text,
    option_lines,
    parse_options,
    snake_case,
    wants_help,
)

# The golden runs as golden/README.md describes their command lines.
COMMON = "-data imagenet -nClasses 5 -manualSeed 2 -batchSize 8 -nDonkeys 0 -cache cache"
TINY = f"{COMMON} -epochSize 6 -nEpochs 2"
BWN = f"{TINY} -retrain models/tiny_bwn.t7"
XNOR = f"{TINY} -retrain models/tiny_xnor.t7"
RUNS = {
    "bwn_sgd": f"{BWN} -binaryWeight",
    "bwn_adam": f"{BWN} -binaryWeight -optimType adam",
    "bwn_regime": f"{BWN} -binaryWeight -epochNumber 29",
    "bwn_testonly": f"{BWN} -binaryWeight -testOnly",
    "xnor_sgd": f"{XNOR} -binaryWeight",
    "xnor_adam": f"{XNOR} -binaryWeight -optimType adam",
    "xnor_testonly": f"{XNOR} -binaryWeight -testOnly",
    "xnor_testonly_real": f"{XNOR} -testOnly",
    "full_alexnetxnor": (
        f"{COMMON} -epochSize 2 -nEpochs 1 -netType alexnetxnor -dropout 0.1 -optimType adam -binaryWeight"
    ),
}


def parse(text: str) -> Options:
    return parse_options(text.split())


# ---- the original's console ----


@pytest.fixture(params=sorted(RUNS))
def run(request: pytest.FixtureRequest, golden: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """Command line and console of one golden run, in the folder where its models/ lie."""
    monkeypatch.chdir(golden)
    console = (golden / "runs" / request.param / "stdout.log").read_text()
    return RUNS[request.param], console.splitlines()


def test_option_lines_are_the_originals(run: tuple[str, list[str]]) -> None:
    command, console = run
    first_other = next(i for i, line in enumerate(console) if line.startswith(("Loading model", "=> Creating")))
    assert sorted(f"{line}\t" for line in option_lines(command.split())) == sorted(console[:first_other])


def test_the_printed_options_are_the_originals(run: tuple[str, list[str]]) -> None:
    """The block of `print(opt)`, run folder included; only the date is this moment's."""
    command, console = run
    start = console.index("{")
    block = console[start : console.index("}", start) + 1]
    date = re.compile(r"/\w{6}\d{1,2}\d\d:\d\d:\d{6}\"")  # /SatNov2120:06:282026"
    assert sum(bool(date.search(line)) for line in block) == 1
    expected = ["{", *sorted(date.sub('/DATE"', line) for line in block[1:-1]), "}"]
    actual = table_text(parse(command).as_table()).splitlines()
    assert [date.sub('/DATE"', line) for line in actual] == expected


def test_run_folder_of_a_golden_run(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden)
    moment = 1795291588  # Sat Nov 21 20:06:28 2026 UTC, worked out in test_lua_format
    saved = parse_options(RUNS["bwn_sgd"].split(), now=moment).save
    folder, date = saved.rsplit("/", 1)
    assert folder == "cache/alexnet,batchSize=8,binaryWeight=t,epochSize=6,nClasses=5,nDonkeys=0,nEpochs=2"
    assert re.fullmatch(r"S(at|un)Nov2[12]\d\d:\d\d:282026", date)  # the rest depends on the time zone


# ---- values ----


def test_defaults() -> None:
    """The table of opts.lua, read by hand."""
    options = parse_options([], now=0.0)
    assert dataclasses.asdict(options) | {"save": ""} == {
        "cache": "./cache/", "data": "./imagenet/imagenet_raw_images/256", "dataset": "imagenet", "manual_seed": 2,
        "gpu": 1, "n_gpu": 1, "backend": "cudnn", "n_donkeys": 8, "image_size": 256, "crop_size": 224,
        "n_classes": 1000, "scaling_factor": 0, "n_epochs": 55, "epoch_size": 2500, "epoch_number": 1,
        "batch_size": 128, "lr": 0.0, "momentum": 0.9, "weight_decay": 0, "share_grad_input": True,
        "binary_weight": False, "test_only": False, "net_type": "alexnet", "optim_type": "sgd", "retrain": "none",
        "load_params": "none", "optim_state": "none", "depth": 18, "shortcut_type": "B", "dropout": 0.5,
        "device": "auto", "resume": "none", "checkpoint_every": 500, "picture_timeout": 60,
            "allow_outside": False, "precision": "float32", "compile": False, "test_all": False,
        "latent_weights": False, "scheme": "original", "input_scale": False,
        "quiet": False, "tensorboard": False, "save": "",
    }  # fmt: skip
    assert options.save.startswith("cache/alexnet/")
    assert type(options.lr) is type(options.weight_decay) is type(options.scaling_factor) is float


def test_every_option_is_a_field() -> None:
    names = [row.name for row in (*ORIGINAL_OPTIONS, *PORT_OPTIONS)]
    assert [field.name for field in dataclasses.fields(Options)] == [*map(snake_case, names), "save"]
    assert len(ORIGINAL_OPTIONS) == 30


def test_the_defaults_are_those_of_opts_lua(shared: Path) -> None:
    """Read from the Lua file itself, where it is at hand."""
    source = shared.parent / "orig" / "allenai+XNOR-Net" / "opts.lua"
    if not source.is_file():
        pytest.skip(f"no {source}")
    found = re.findall(r"cmd:option\('-(\w+)',\s*([^,]+?)\s*,", source.read_text())
    assert [(row.name, table_text([row.default])) for row in ORIGINAL_OPTIONS] == [
        (name, table_text([literal(text)])) for name, text in found
    ]


def literal(text: str) -> str | float | bool:
    if text in ("true", "false"):
        return text == "true"
    return text[1:-1] if text.startswith("'") else float(text)


def test_booleans_invert_and_numbers_are_lua_numbers() -> None:
    options = parse("-shareGradInput -binaryWeight -batchSize 0x20 -LR 1e-2 -nEpochs 3.0 -manualSeed -7")
    assert (options.share_grad_input, options.binary_weight) == (False, True)
    assert (options.batch_size, options.lr, options.n_epochs, options.manual_seed) == (32, 0.01, 3, -7)
    assert type(options.n_epochs) is int


def test_run_folder_names() -> None:
    def folder(text: str) -> str:
        return str(Path(parse(text).save).parent)

    assert folder("") == "cache/alexnet"
    assert folder("-LR 0.01 -batchSize 32") == "cache/alexnet,LR=0.01,batchSize=32"  # capitals first, as Lua sorts
    assert folder("-shareGradInput -cache /tmp/runs/") == "/tmp/runs/alexnet,shareGradInput=f"
    assert folder("-netType alexnetxnor -momentum .95") == "cache/alexnetxnor,momentum=0.95"
    assert folder("-batchSize 128") == "cache/alexnet"  # typed, but the default


def test_the_ports_options_leave_the_folder_name_alone() -> None:
    typed = "-device cpu -testAll -latentWeights -quiet"
    assert Path(parse(typed).save).parent == Path(parse("").save).parent
    assert Path(parse("-backend cunn").save).parent == Path("cache/alexnet,backend=cunn")
    assert option_lines(typed.split()) == option_lines([])


def test_what_makes_another_network_names_the_folder() -> None:
    def folder(text: str) -> str:
        return str(Path(parse(text).save).parent)

    assert folder("-netType resnetxnor -scheme bireal") == "cache/resnetxnor,scheme=bireal"
    assert folder("-netType alexnetxnor -inputScale") == "cache/alexnetxnor,inputScale=t"
    assert folder("-precision bf16") == "cache/alexnet,precision=bf16"


def test_the_table_tells_the_ports_options_that_were_given() -> None:
    assert set(parse("").as_table()) == {row.name for row in ORIGINAL_OPTIONS} | {"save"}
    table = parse("-device cpu -quiet").as_table()
    assert (table["device"], table["quiet"]) == ("cpu", True)
    assert "testAll" not in table
    assert list(table) == sorted(table)


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse("").lr = 1.0  # type: ignore[misc]


# ---- mistakes ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-batchSize 0", "-batchSize 0: expected 1 or more"),
        ("-batchSize 2.5", "-batchSize 2.5: expected a whole number"),
        ("-batchSize inf", "-batchSize inf: expected a whole number"),
        ("-nDonkeys -1", "-nDonkeys -1: expected 0 or more"),
        ("-epochSize 0", "-epochSize 0: expected 1 or more"),
        ("-epochNumber 0", "-epochNumber 0: expected 1 or more"),
        ("-nEpochs -1", "-nEpochs -1: expected 0 or more"),
        ("-nClasses 0", "-nClasses 0: expected 1 or more"),
        ("-GPU 0", "-GPU 0: expected 1 or more"),
        ("-nGPU 0", "-nGPU 0: expected 1 or more"),
        ("-manualSeed 0.5", "-manualSeed 0.5: expected a whole number"),
        ("-imageSize 0", "-imageSize 0: expected 1 or more"),
        (
            "-cropSize 257",
            "-cropSize 257 is larger than -imageSize 256, a picture's shorter side; expected 256 or less",
        ),
        (
            "-imageSize 200",
            "-cropSize 224 is larger than -imageSize 200, a picture's shorter side; expected 200 or less",
        ),
        ("-LR -1", "-LR -1: expected a number from 0 on"),
        ("-LR nan", "-LR nan: expected a number from 0 on"),
        ("-LR inf", "-LR inf: expected a number from 0 on"),
        ("-momentum 1", "-momentum 1: expected a number from 0 on and below 1"),
        ("-dropout 1", "-dropout 1: expected a number from 0 on and below 1"),
        ("-weightDecay -0.1", "-weightDecay -0.1: expected a number from 0 on"),
        ("-scalingFactor -0.5", "-scalingFactor -0.5: expected a number from 0 on"),
        ("-netType Alexnet", f"-netType Alexnet: expected one of {', '.join(NET_TYPES)}; did you mean alexnet?"),
        ("-netType mine", f"-netType mine: expected one of {', '.join(NET_TYPES)}"),
        ("-shortcutType D", "-shortcutType D: expected one of A, B, C"),
        ("-optimType adm", "-optimType adm: expected one of sgd, adam, adamax; did you mean adam?"),
        ("-device gpu", "-device gpu: expected one of auto, cpu, cuda"),
        ("-device CUDA", "-device CUDA: expected one of auto, cpu, cuda; did you mean cuda?"),
        ("-backend cudn", "-backend cudn: expected one of cudnn, cunn, ccn2, nn, xnor; did you mean cudnn?"),
        ("-retrain gone.t7", "-retrain gone.t7: file not found"),
        ("-loadParams gone.t7", "-loadParams gone.t7: file not found"),
        ("-optimState gone.t7", "-optimState gone.t7: file not found"),
        ("-retrain .", "-retrain .: this is a folder, expected a .t7 file"),
        ("-retrain /dev/null", "-retrain /dev/null: this is a device or pipe, expected a .t7 file"),
        ("-nDonkeys 4294967296", "-nDonkeys 4294967296: expected 1024 or less"),
        ("-nGPU 10000000", "-nGPU 10000000: expected 1024 or less"),
        ("-epochSize 10000000000", "-epochSize 10000000000: expected 10000000 or less"),
    ],
)
def test_values_that_cannot_be(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(XnorNetError, match=f"^{re.escape(message)}$"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-batchsize 8", "invalid argument: -batchsize (did you mean -batchSize?)"),
        ("-resumes x", "invalid argument: -resumes"),
        ("-batchSize", "missing argument for option -batchSize"),
        ("-batchSize eight", "invalid type for option -batchSize (should be number)"),
        ("-binaryWeight true", "invalid argument: true (-binaryWeight before it takes no value)"),
    ],
)
def test_command_lines_that_torch_refuses(text: str, message: str) -> None:
    with pytest.raises(CmdLineError, match=re.escape(message)):
        parse(text)


def test_a_folder_of_many_options_has_a_name_that_a_disk_takes() -> None:
    """As the original's up to 255 bytes; of options.json in it nothing is left out."""
    whole = Path(parse(f"-dataset {'d' * 239}").save).parent.name
    assert whole == f"alexnet,dataset={'d' * 239}"
    longer = Path(parse(f"-dataset {'ü' * 120}").save).parent.name
    assert longer == f"alexnet,dataset={'ü' * 118}..."
    assert len(longer.encode()) == 255


@pytest.mark.parametrize("backend", ["cudnn", "ccn2", "cunn", "nn"])
def test_backends(backend: str) -> None:
    assert parse(f"-backend {backend}").backend == backend


def test_packed_kernels_only_test(tmp_path: Path) -> None:
    assert parse("-backend xnor -testOnly").backend == "xnor"
    packed = tmp_path / "model.xnor.safetensors"
    packed.touch()
    for text, problem in (
        ("-backend xnor", "-backend xnor: packed kernels only test: add -testOnly"),
        ("-backend xnor -testOnly -latentWeights", "-backend xnor -latentWeights: packed kernels have binary weights"),
        (f"-retrain {packed}", f"-retrain {packed}: only tested, as a packed network: add -testOnly -backend xnor"),
        (f"-retrain {packed} -testOnly", f"-retrain {packed}: only tested, as a packed network: add"),
    ):
        with pytest.raises(XnorNetError, match=f"^{re.escape(problem)}"):
            parse(text)


def test_other_networks_can_be_made_known() -> None:
    assert parse_options(["-netType", "mine"], net_types=[*NET_TYPES, "mine"]).net_type == "mine"
    assert "Networks: alexnet | alexnetxnor | mine" in help_text(["alexnet", "alexnetxnor", "mine"])


def test_net_type_only_names_the_folder_of_a_retrained_network(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden)
    assert parse("-retrain models/tiny_bwn.t7 -netType mine").save.startswith("cache/mine/")


# ---- help ----


def test_help_has_every_option_with_its_default() -> None:
    text = help_text()
    assert text.startswith("Usage: main.py [options]\n")
    for row in (*ORIGINAL_OPTIONS, *PORT_OPTIONS):
        assert re.search(rf"^  -{row.name} +\S.* \[.+\]$", text, re.MULTILINE)
    assert text.index("Options of the original:") < text.index("-dropout") < text.index("Options of this port:")
    assert text.index("Options of this port:") < text.index("-device")
    assert "Exit codes: 0 done, 1 an error" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["-help"], True),
        (["-h"], True),
        (["-batchSize", "8", "--help"], True),
        ([], False),
        (["-cache", "-help"], False),  # the value of -cache
        (["-nonsense", "-help"], False),  # the mistake comes first, as in the original
    ],
)
def test_wants_help(words: Sequence[str], wanted: bool) -> None:
    assert wants_help(words) is wanted
    if wanted:
        with pytest.raises(HelpRequested):
            parse_options(words)


def test_options_do_not_need_torch() -> None:
    """-help and mistakes come at once."""
    code = "import sys, xnornet_port.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
