"""The options of a run: those of opts.lua, same spelling and defaults, and a second group of this port.

Everything typed is checked here, once, before anything is loaded. Needs neither PyTorch nor the data.
"""

import difflib
import math
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lua_compat.cmdline import CmdLine, HelpRequested, OptionValue
from lua_compat.errors import CmdLineError
from lua_compat.lua_format import os_date, to_string
from xnornet_port.cifar_names import CIFAR_CLASSES, CIFAR_SIDE
from xnornet_port.errors import XnorNetError
from xnornet_port.models import NETWORKS
from xnornet_port.models.settings import SHORTCUT_TYPES
from xnornet_port.schemes import ORIGINAL, SCHEMES

__all__ = [
    "NET_TYPES",
    "Options",
    "help_text",
    "option_lines",
    "parse_options",
    "recorded_options",
    "snake_case",
    "typed_options",
    "wants_help",
]

NET_TYPES = tuple(NETWORKS)
OPTIM_TYPES = ("sgd", "adam", "adamax")
PRECISIONS = ("float32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda")
BACKENDS = ("cudnn", "cunn", "ccn2", "nn", "xnor")

PROGRAM = "main.py"
LONGEST_NAME = 255  # bytes
NO_EFFECT = "no effect, accepted for old command lines"


class Row(NamedTuple):
    """One option: its name without the dash, its default, its help."""

    name: str
    default: OptionValue
    help: str


# The options of opts.lua in its order; help texts are this port's (the original's for scalingFactor, binaryWeight and
# testOnly belong to other options).
ORIGINAL_OPTIONS = (
    Row("cache", "./cache/", "folder of the caches, and of a sub-folder per run"),
    Row("data", "./imagenet/imagenet_raw_images/256", "folder with train/CLASS/PICTURE and val/CLASS/PICTURE"),
    Row("dataset", "imagenet", "imagenet: folders of pictures; cifar10, cifar100: files of theirs in -data"),
    Row("manualSeed", 2, "seed of weights, dropout and data"),
    Row("GPU", 1, "which GPU, counted from 1"),
    Row("nGPU", 1, "processes that train together, each on a GPU of its own (or on the CPU)"),
    Row("backend", "cudnn", "cudnn, cunn, ccn2 or nn: all the same here; xnor: -testOnly on packed kernels"),
    Row("nDonkeys", 8, "processes that read pictures, for each that trains; 0: none, and the original's random stream"),
    Row("imageSize", 256, "pixels of a picture's shorter side after scaling"),
    Row("cropSize", 224, "pixels of the side of the square cut out for the network"),
    Row("nClasses", 1000, "number of classes"),
    Row("scalingFactor", 0, "pictures are scaled up further by a random factor of up to 1 + this"),
    Row("nEpochs", 55, "number of epochs to train"),
    Row("epochSize", 2500, "batches in an epoch"),
    Row("epochNumber", 1, "number of the first epoch, to go on with a run"),
    Row("batchSize", 128, "pictures in a batch"),
    Row("LR", 0.0, "learning rate; 0: rate and weight decay of the built-in recipe"),
    Row("momentum", 0.9, "momentum of sgd"),
    Row("weightDecay", 0, "weight decay; counts only with -LR"),
    Row("shareGradInput", True, NO_EFFECT),
    Row("binaryWeight", False, "train and test with binary weights in all but the first and last layer"),
    Row("testOnly", False, "test the network of -retrain, do not train"),
    Row("netType", "alexnet", "network to build, one of those named above"),
    Row("optimType", "sgd", "sgd, adam or adamax (adam without the gradient factor of 1e9)"),
    Row("retrain", "none", "start from this network (.t7)"),
    Row("loadParams", "none", "build -netType and take the parameters of this network (.t7)"),
    Row("optimState", "none", "go on with this optimiser state (optimState_N.t7)"),
    Row(
        "depth",
        18,
        "layers of resnet, resnetxnor: 18, 34, 50, 101, 152; for pictures of 32x32 6n + 2",
    ),
    Row("shortcutType", "B", "ways around the blocks of resnet and resnetxnor: A zeros, B and C convolutions of 1x1"),
    Row(
        "dropout",
        0.5,
        "share that dropout zeroes: of channels in alexnet, of numbers elsewhere",
    ),
)

PORT_OPTIONS = (
    Row("device", "auto", "auto (a GPU where there is one), cpu or cuda"),
    Row("resume", "none", "go on with the run in this folder where it stopped; its options are taken from there"),
    Row("checkpointEvery", 500, "batches between states to resume from; 0: at the ends of training and test only"),
    Row("pictureTimeout", 60, "seconds a picture may take a data worker before it counts as unreadable"),
    Row("allowOutside", False, "take pictures that a cache names outside of -data, too"),
    Row("precision", "float32", "float32, or bf16 or fp16 for convolutions and products: no longer Torch7's numbers"),
    Row("compile", False, "translate the network with torch.compile"),
    Row("testAll", False, "test the last, incomplete batch too (the original leaves it out)"),
    Row("latentWeights", False, "with -testOnly: test an XNOR network's real-valued weights, as the original"),
    Row("scheme", ORIGINAL, f"how binary layers work: {' | '.join((ORIGINAL, *SCHEMES))}"),
    Row("inputScale", False, "with the paper's scale K of binary inputs, which the original lacks"),
    Row("quiet", False, "print summaries and warnings only"),
    Row("tensorboard", False, "write loss, accuracies and learning rate for TensorBoard into the run's folder"),
)

# Of the port's own options, those that make another network or other numbers.
CHANGE_NUMBERS = ("precision", "scheme", "inputScale")

# Options that do not show in the run folder's name: the original's six, and the port's own that change no number.
NOT_IN_NAME = {
    **dict.fromkeys(("netType", "retrain", "loadParams", "optimState", "cache", "data"), True),
    **{row.name: True for row in PORT_OPTIONS if row.name not in CHANGE_NUMBERS},
}

# Least value of the options that are whole numbers.
WHOLE_NUMBERS = {
    "manualSeed": -(2**53),
    "GPU": 1,
    "nGPU": 1,
    "nDonkeys": 0,
    "imageSize": 1,
    "cropSize": 1,
    "nClasses": 1,
    "nEpochs": 0,
    "epochSize": 1,
    "epochNumber": 1,
    "batchSize": 1,
    "depth": 1,
    "checkpointEvery": 0,
    "pictureTimeout": 1,
}
# The largest, where a slip of the finger would start processes, or list batches, until the memory is full.
LARGEST = {"nGPU": 1024, "nDonkeys": 1024, "epochSize": 10**7}
# Options that are any number from 0 on, and the bound they stay below.
FRACTIONS = {"scalingFactor": math.inf, "LR": math.inf, "momentum": 1.0, "weightDecay": math.inf, "dropout": 1.0}
CHOICES = {
    "scheme": (ORIGINAL, *SCHEMES),
    "shortcutType": SHORTCUT_TYPES,
    "optimType": OPTIM_TYPES,
    "device": DEVICES,
    "backend": BACKENDS,
    "precision": PRECISIONS,
}
FILES = ("retrain", "loadParams", "optimState")


@dataclass(frozen=True)
class Options:
    """What was typed, checked. A field is an option's name in snake_case; sizes are in pixels."""

    cache: str  # folder of the cache files and the run folders
    data: str  # folder with train/ and val/
    dataset: str  # a key of CIFAR_CLASSES; anything else means folders of pictures
    manual_seed: int
    gpu: int  # counted from 1
    n_gpu: int
    backend: str  # one of BACKENDS
    n_donkeys: int  # worker processes; 0: pictures are read by the main process
    image_size: int  # shorter side after scaling
    crop_size: int  # side of the network's input, at most image_size
    n_classes: int
    scaling_factor: float
    n_epochs: int
    epoch_size: int  # batches
    epoch_number: int  # of the first epoch, from 1
    batch_size: int
    lr: float  # 0: the recipe's
    momentum: float
    weight_decay: float
    share_grad_input: bool  # no effect
    binary_weight: bool
    test_only: bool
    net_type: str  # one of the given net_types, unless `retrain` names a file
    optim_type: str  # one of OPTIM_TYPES
    retrain: str  # "none" or an existing file, as the next two
    load_params: str
    optim_state: str
    depth: int  # of resnet and resnetxnor
    shortcut_type: str  # one of SHORTCUT_TYPES
    dropout: float  # 0 <= dropout < 1
    device: str  # one of DEVICES
    resume: str  # "none" or the folder of a run
    checkpoint_every: int  # batches; 0: none within an epoch
    picture_timeout: int  # seconds
    allow_outside: bool
    precision: str  # one of PRECISIONS
    compile: bool
    test_all: bool
    latent_weights: bool
    scheme: str  # ORIGINAL or a key of SCHEMES
    input_scale: bool
    quiet: bool
    tensorboard: bool
    save: str  # folder of this run, CACHE/NETTYPE,name=value,.../DATE

    def as_table(self) -> dict[str, OptionValue]:
        """What the original's `print(opt)` shows, sorted: its options and `save`; this port's where they were given."""
        rows = [*ORIGINAL_OPTIONS, *(row for row in PORT_OPTIONS if self._value(row.name) != row.default)]
        table = {row.name: self._value(row.name) for row in rows}
        return dict(sorted({**table, "save": self.save}.items()))

    @property
    def binary_scheme(self) -> str:
        """What `scheme` and `input_scale` say together."""
        return "xnork" if self.input_scale else self.scheme

    def _value(self, name: str) -> OptionValue:
        value: OptionValue = getattr(self, snake_case(name))
        return value


def parse_options(argv: Sequence[str], net_types: Sequence[str] = NET_TYPES, now: float | None = None) -> Options:
    """The options typed in `argv` (opts.lua M.parse).

    `net_types` are the networks there are; `now`, in seconds since 1970, gives the run folder its date. Raises
    `CmdLineError` for what is no option, a missing or a non-numeric value (torch.CmdLine's texts), `XnorNetError` for a
    value that cannot be, `HelpRequested` for -help.
    """
    cmd = _command_line(net_types)
    typed = cmd.parse(argv, PROGRAM)
    values = _with_cifars_sizes(typed)
    _check_numbers(values)
    _check_choices(values, net_types)
    _check_scheme(values)
    _check_files(values)
    _check_packed(values)
    name = "/".join(map(_cut, cmd.string(str(values["netType"]), typed, NOT_IN_NAME).split("/")))
    return _options(values, str(Path(str(values["cache"])) / name / os_date(when=now).replace(" ", "")))


def typed_options(argv: Sequence[str]) -> dict[str, OptionValue]:
    """The values of those options only that stand in `argv`, which `parse_options` takes."""
    cmd = _command_line(NET_TYPES)
    values = cmd.parse(argv, PROGRAM)
    typed, place = {}, 0
    while place < len(argv):
        option = cmd.options[argv[place]]
        name = argv[place].removeprefix("-")
        typed[name] = values[name]
        place += 1 if option.kind == "boolean" else 2
    return typed


def recorded_options(table: Mapping[str, object], save: str) -> Options:
    """Options from what `as_table` gave, for the run folder `save`; files that they name need not be there any more.

    Raises XnorNetError for what is no option or has a value that cannot be.
    """
    values = _command_line(NET_TYPES).default()
    for name, value in table.items():
        if name == "save":
            continue
        if name not in values:
            raise XnorNetError(f"option {name} is not known here; was the run started with another version?")
        if not isinstance(value, bool | int | float | str) or _kind(value) != _kind(values[name]):
            raise XnorNetError(f"option {name} is {value!r}, expected a {_kind(values[name])}")
        values[name] = value
    _check_numbers(values)
    _check_choices(values, NET_TYPES)
    return _options(values, save)


def option_lines(argv: Sequence[str]) -> list[str]:
    """The lines the original prints while it makes the run folder's name, in the order of opts.lua (there: any)."""
    cmd = _command_line(NET_TYPES)
    values = cmd.parse(argv)
    return cmd.string_lines({row.name: values[row.name] for row in ORIGINAL_OPTIONS}, NOT_IN_NAME)


def help_text(net_types: Sequence[str] = NET_TYPES) -> str:
    """Usage, and every option with its default."""
    return _command_line(net_types).help(PROGRAM)


def wants_help(argv: Sequence[str]) -> bool:
    """Whether `parse_options` would come to -help, -h or --help before any mistake."""
    try:
        _command_line(NET_TYPES).parse(argv)
    except HelpRequested:
        return True
    except CmdLineError:
        return False
    return False


def snake_case(name: str) -> str:
    """nClasses -> n_classes, LR -> lr, nGPU -> n_gpu."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _options(values: Mapping[str, OptionValue], save: str) -> Options:
    fields: dict[str, Any] = {snake_case(name): value for name, value in values.items()}
    fields.update({snake_case(name): float(values[name]) for name in FRACTIONS})
    return Options(**fields, save=save)


def _cut(name: str) -> str:
    """A folder's name of at most the bytes that a file system takes; options.json in it has all options."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_NAME else raw[: LONGEST_NAME - 3].decode(errors="ignore") + "..."


def _kind(value: OptionValue) -> str:
    return "yes or no" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _command_line(net_types: Sequence[str]) -> CmdLine:
    cmd = CmdLine()
    cmd.text()
    cmd.text("Train and test XNOR-Net and binary-weight networks on pictures in ImageNet's layout.")
    cmd.text("A yes-or-no option takes no value: naming it switches it, on or off.")
    cmd.text()
    cmd.text(f"  python {PROGRAM} -data imagenet -netType alexnetxnor -binaryWeight -optimType adam")
    cmd.text(f"  python {PROGRAM} -data imagenet -retrain alexnet_XNOR.t7 -testOnly")
    cmd.text(f"  python {PROGRAM} -resume cache/alexnetxnor,.../DATE")
    cmd.text()
    for line in textwrap.wrap(f"Networks: {' | '.join(net_types)}", width=110, break_long_words=False):
        cmd.text(line)
    for title, rows in (("Options of the original:", ORIGINAL_OPTIONS), ("Options of this port:", PORT_OPTIONS)):
        cmd.text()
        cmd.text(title)
        for row in rows:
            cmd.option(f"-{row.name}", row.default, row.help)
    cmd.text()
    cmd.text(
        "Exit codes: 0 done, 1 an error (one line says which), 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."
    )
    cmd.text()
    return cmd


def _with_cifars_sizes(typed: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """With -dataset cifar10 or cifar100, the sizes and classes of its pictures where the defaults are ImageNet's."""
    values, dataset = dict(typed), str(typed["dataset"])
    if not dataset.startswith("cifar"):
        return values
    if dataset not in CIFAR_CLASSES:
        raise XnorNetError(f"-dataset {dataset}: expected imagenet, {' or '.join(CIFAR_CLASSES)}")
    defaults = {row.name: row.default for row in ORIGINAL_OPTIONS}
    fixed = {"imageSize": CIFAR_SIDE, "cropSize": CIFAR_SIDE, "nClasses": CIFAR_CLASSES[dataset], "scalingFactor": 0}
    for name, value in fixed.items():
        if values[name] not in (value, defaults[name]):
            raise XnorNetError(
                f"-{name} {to_string(values[name])}: with -dataset {dataset} it is {value}; leave it out"
            )
        values[name] = value
    return values


def _check_numbers(values: Mapping[str, OptionValue]) -> None:
    for name, least in WHOLE_NUMBERS.items():
        value = values[name]
        if not isinstance(value, int):
            raise XnorNetError(f"-{name} {to_string(value)}: expected a whole number")
        if value < least:
            raise XnorNetError(f"-{name} {value}: expected {least} or more")
        if value > LARGEST.get(name, math.inf):
            raise XnorNetError(f"-{name} {value}: expected {LARGEST[name]} or less")
    for name, bound in FRACTIONS.items():
        value = float(values[name])
        if not 0 <= value < bound:
            below = "" if bound == math.inf else f" and below {to_string(bound)}"
            raise XnorNetError(f"-{name} {to_string(value)}: expected a number from 0 on{below}")
    crop, whole = int(values["cropSize"]), int(values["imageSize"])
    if crop > whole:
        raise XnorNetError(
            f"-cropSize {crop} is larger than -imageSize {whole}, a picture's shorter side; expected {whole} or less"
        )


def _check_choices(values: Mapping[str, OptionValue], net_types: Sequence[str]) -> None:
    choices: dict[str, Sequence[str]] = dict(CHOICES)
    if values["retrain"] == "none":  # else the network comes from the file, and -netType only names the folder
        choices["netType"] = net_types
    for name, valid in choices.items():
        value = str(values[name])
        if value not in valid:
            near = difflib.get_close_matches(value.lower(), valid, n=1, cutoff=0.7)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise XnorNetError(f"-{name} {value}: expected one of {', '.join(valid)}{hint}")


def _check_scheme(values: Mapping[str, OptionValue]) -> None:
    if values["inputScale"] and values["scheme"] not in (ORIGINAL, "xnor", "xnork"):
        raise XnorNetError(f"-scheme {values['scheme']} -inputScale: only XNOR-Net's own scheme has an input scale")


def _check_files(values: Mapping[str, OptionValue]) -> None:
    for name in FILES:
        path = str(values[name])
        if path == "none" or Path(path).is_file():
            continue
        kind = "folder" if Path(path).is_dir() else "device or pipe"
        problem = f"this is a {kind}, expected a .t7 file" if Path(path).exists() else "file not found"
        raise XnorNetError(f"-{name} {path}: {problem}")


def _check_packed(values: Mapping[str, OptionValue]) -> None:
    """-backend xnor and packed files are for testing."""
    if values["backend"] == "xnor" and values["precision"] != "float32":
        raise XnorNetError(f"-precision {values['precision']}: not with -backend xnor, which computes with bits")
    is_xnor, retrain = values["backend"] == "xnor", str(values["retrain"])
    if is_xnor and not values["testOnly"]:
        raise XnorNetError("-backend xnor: packed kernels only test: add -testOnly (training needs real weights)")
    if is_xnor and values["latentWeights"]:
        raise XnorNetError("-backend xnor -latentWeights: packed kernels have binary weights; leave one of the two out")
    if retrain.endswith(".safetensors") and not is_xnor:
        raise XnorNetError(f"-retrain {retrain}: only tested, as a packed network: add -testOnly -backend xnor")
