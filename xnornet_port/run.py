"""The order of a run: network, data, then epochs of training and testing, or one test (main.lua)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from lua_compat.generator import Generator
from lua_compat.lua_format import table_text
from lua_compat.module_text import module_text
from lua_compat.nn import from_torch, set_generator
from xnornet_port import unreadable
from xnornet_port.answers import criterion_of
from xnornet_port.batch_part_draws import BatchPartGenerator
from xnornet_port.binarization import Binarizer
from xnornet_port.checkpoint import latest_epoch, load_optimizer_state, model_path, resumption, what_is_saved
from xnornet_port.cifar import is_cifar, open_cifar
from xnornet_port.compilation import compiled
from xnornet_port.data import DataSource, open_data
from xnornet_port.dataset_cache import write_classes
from xnornet_port.errors import XnorNetError, reason_of
from xnornet_port.evaluate import Tester, binarizes_for_test
from xnornet_port.folder_lock import folder_lock
from xnornet_port.interrupt import StopRequest, stop_on_signals
from xnornet_port.memory import memory_errors
from xnornet_port.metadata import check_class_count, check_data_folder
from xnornet_port.model import build_model, check_classes, check_input, load_model, load_parameters
from xnornet_port.options import Options
from xnornet_port.packed_testing import packed_for_test
from xnornet_port.parallel import Place, Replicas, join
from xnornet_port.passes import test_pass
from xnornet_port.plan import TrainingPlan, UpdateSettings
from xnornet_port.precision import arithmetic
from xnornet_port.record import add_resumption, write_record
from xnornet_port.report import Report
from xnornet_port.run_state import Moment, StateKeeper, Training, restore
from xnornet_port.schemes import ORIGINAL
from xnornet_port.state_files import StoredState, drop_unfinished_files, read_newest_state
from xnornet_port.summation import convolution_sums
from xnornet_port.training import prepare_training, train
from xnornet_port.transfer import CudaCopies, Mover

__all__ = ["run"]


def run(options: Options, report: Report, place: Place | None = None) -> int:
    """Do what the options say; returns the exit code (0, or that of the signal that ended it).

    `place`: which of several processes this is, where they train together. User errors raise XnorNetError.
    """
    # before the seconds it takes to draw a large network
    if is_cifar(options.dataset):
        check_data_folder(options.data, expected=f"the files of {options.dataset}")
    else:
        check_data_folder(options.data, ["val"] if options.test_only else ["train", "val"])
        if options.retrain == "none":
            check_class_count(options.data, options.cache, options.n_classes)
    device = choose_device(options.device, options.gpu, place)
    use_full_precision()
    with join(place, device) as replicas:
        if not options.test_only and options.batch_size < replicas.size:
            raise XnorNetError(f"-batchSize {options.batch_size} is fewer pictures than processes ({replicas.size})")
        # each process has made the name of the run's folder, with the time it started
        return _run(replace(options, save=replicas.firsts_text(options.save)), device, replicas, report)


def _run(options: Options, device: torch.device, replicas: Replicas, report: Report) -> int:
    folder = Path(options.save)
    with ExitStack() as stack:
        if replicas.is_first:
            stack.enter_context(_run_folder(folder))
        stored = _stored_state(folder, replicas, report) if options.resume != "none" else None
        with memory_errors("the network", f"is -nClasses {options.n_classes} or -cropSize {options.crop_size} a slip?"):
            network = _make_network(options, stored is not None, report).to(device)
            check_input(network, options.crop_size, options.n_classes)
        dropout_stream = _dropout_stream(options, replicas)
        set_generator(network, dropout_stream)
        _describe(network, options, device, replicas, report)
        with replicas.first_alone():  # it makes the caches
            data = stack.enter_context(_open_data(options, device, replicas, report))
        stack.enter_context(convolution_sums(network, device))
        stack.enter_context(arithmetic(network, device, options.precision))
        if options.compile:
            stack.enter_context(compiled(network))
        # from here on there are batches to stop after
        should_stop = stack.enter_context(stop_on_signals(report.warn))
        stack.enter_context(memory_errors(f"batches of {options.batch_size} pictures", _more_memory(options)))
        data.n_test_batches(options.batch_size, options.test_all)  # refuses before hours of training
        if not options.test_only:
            data.check_training()
        if options.test_only:
            if replicas.is_first:
                _record(folder, options, data.classes, device, replicas.size, report)
                _open_logs(options, None, report)
            return _test_only(options, network, device, replicas, data, report, should_stop)
        plan = _plan(options)
        training = prepare_training(plan.update, network, dropout_stream, device, replicas, report)
        start = _start(options, training, data, stored, report)
        if replicas.is_first:  # when nothing can be refused any more: a record keeps no option of a failed start
            _record(folder, options, data.classes, device, replicas.size, report)
            _open_logs(options, start if stored else None, report)
        keeper = StateKeeper(folder, options.checkpoint_every, training, data, report.warn)
        return train(plan, training, data, start, keeper, report, should_stop)


def _stored_state(folder: Path, replicas: Replicas, report: Report) -> StoredState | None:
    """The newest state of a run that is resumed, one and the same for all processes."""
    with replicas.first_alone():  # it has the folder to itself: no other one is being written
        stored = read_newest_state(folder, report.warn)
    own = "none" if stored is None else stored.identity
    firsts = replicas.firsts_text(own)
    if own != firsts:
        raise XnorNetError(
            f"{folder}: process {replicas.rank + 1} of {replicas.size} finds the state {own}, the first one {firsts}; "
            "copy the run's folder from the first one's machine to this one's"
        )
    return stored


def _more_memory(options: Options) -> str:
    """What to do where there is no memory for batches."""
    ways = "use a smaller -batchSize"
    if options.test_only:
        return ways
    return f"{ways}, or where there is more, as with a larger -nGPU, go on with {resumption(Path(options.save))}"


def _dropout_stream(options: Options, replicas: Replicas) -> Generator:
    if replicas.size == 1:
        return Generator(options.manual_seed)
    return BatchPartGenerator(options.manual_seed, options.batch_size, replicas.part(options.batch_size))


def _plan(options: Options) -> TrainingPlan:
    return TrainingPlan(
        folder=Path(options.save),
        first_epoch=options.epoch_number,
        n_epochs=options.n_epochs,
        epoch_size=options.epoch_size,
        batch_size=options.batch_size,
        test_all=options.test_all,
        update=UpdateSettings(
            optim_type=options.optim_type,
            learning_rate=options.lr,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            binary_weight=options.binary_weight,
        ),
        has_optim_state=options.optim_state != "none",
    )


def _record(
    folder: Path, options: Options, classes: list[str], device: torch.device, n_processes: int, report: Report
) -> None:
    """Write classes.t7 and options.json."""
    write_classes(str(folder / "classes.t7"), classes)
    if options.resume == "none":
        write_record(folder, options, device, n_processes)
    else:
        drop_unfinished_files(folder)
        changed = add_resumption(folder, options, device, n_processes)
        if changed:
            report.warn(f"Not the same to the last bit any more: {'; '.join(changed)}")


def _open_logs(options: Options, resumed_at: Moment | None, report: Report) -> None:
    """Start the logs, or go on with those of a resumed run."""
    folder = Path(options.save)
    report.open_logs(folder, append=resumed_at is not None)
    if options.tensorboard:
        from_epoch = resumed_at.epoch + int(resumed_at.is_trained) if resumed_at else None
        report.open_tensorboard(folder, from_epoch)


def _start(
    options: Options, training: Training, data: DataSource, stored: StoredState | None, report: Report
) -> Moment:
    """Where training starts: at the first epoch, or where the stored state was written."""
    folder = Path(options.save)
    if stored is not None:
        moment = restore(stored, training, data, folder)
        done = f"{moment.so_far.total.n_batches} of {options.epoch_size} batches trained"
        report.warn(f"Resuming {folder}: epoch {moment.epoch}, {done}")
        if moment.epoch >= options.epoch_number + options.n_epochs:
            report.warn(f"All {options.n_epochs} epochs of this run are done; -nEpochs with a larger number adds some")
        return moment
    if options.resume != "none":
        if latest_epoch(folder) is not None:
            raise XnorNetError(f"{folder}: its states are gone; {what_is_saved(folder)}")
        report.warn(f"Resuming {folder}: no state was kept yet, it starts from the beginning")
    if options.optim_state != "none":
        report.say(f"Loading optimState from file: {options.optim_state}")
        load_optimizer_state(training.learner.optimizer, options.optim_state)
    return Moment(options.epoch_number)


def choose_device(name: str, gpu: int, place: Place | None = None) -> torch.device:
    """-device auto|cpu|cuda and -GPU (counted from 1), of several processes on this machine each the next GPU.

    Raises XnorNetError for a GPU that is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise XnorNetError(
            "-device cuda: PyTorch finds no CUDA GPU here; use -device cpu, or install a CUDA build of PyTorch"
        )
    n_gpus = torch.cuda.device_count()
    n_wanted = place.local_size if place else 1
    if gpu + n_wanted - 1 > n_gpus:
        several = f" for {n_wanted} processes, each with a GPU of its own (-nGPU)" if n_wanted > 1 else ""
        raise XnorNetError(f"-GPU {gpu}{several}: there are GPUs 1 to {n_gpus}")
    return torch.device("cuda", gpu - 1 + (place.local_rank if place else 0))


def use_full_precision() -> None:
    """No TF32 on GPUs: float32 as Torch7 computed it."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def _make_network(options: Options, is_resumed: bool, report: Report) -> nn.Module:
    """The network of -retrain or a new one. For a resumed run its parameters do not matter: they are in the state."""
    if options.retrain != "none":
        path = _network_file(options) if is_resumed else options.retrain
        report.say(f"Loading model from file: {path}")
        network = load_model(path)
        check_classes(network, options.n_classes, path)
        if options.load_params != "none":
            report.warn(f"-loadParams {options.load_params} has no effect with -retrain")
        if options.binary_scheme != ORIGINAL:
            report.warn(f"-scheme {options.binary_scheme} has no effect with -retrain: the network brings its own")
        return network
    if options.test_only and options.load_params == "none":
        report.warn("-testOnly without -retrain or -loadParams tests a network of random numbers")
    report.say(f"=> Creating model from file: models/{options.net_type}.lua")
    network = build_model(
        options.net_type,
        options.n_classes,
        options.dropout,
        options.manual_seed,
        depth=options.depth,
        shortcut_type=options.shortcut_type,
        dataset=options.dataset,
        scheme=options.binary_scheme,
    )
    if options.load_params != "none" and not is_resumed:
        load_parameters(network, options.load_params)
    return network


def _network_file(options: Options) -> str:
    """A file with the network of a run: what it was started from or, where that is gone, the last one it saved."""
    last = latest_epoch(Path(options.save))
    if last is None or Path(options.retrain).is_file():
        return options.retrain
    return str(model_path(Path(options.save), last))


def _describe(network: nn.Module, options: Options, device: torch.device, replicas: Replicas, report: Report) -> None:
    if replicas.size > 1:
        report.say("converting module to nn.DataParallelTable")
    report.say("=> Model")
    report.block(module_text(from_torch(network)))
    report.say("=> Criterion")
    report.block(module_text(from_torch(criterion_of(network))))
    report.say("==> Converting model to CUDA")
    report.block(table_text(options.as_table()))
    report.say(f"Saving everything to: {options.save}")
    report.say(f"Running on: {device}" + (f", {replicas.size} processes" if replicas.size > 1 else ""))
    if options.precision != "float32":
        report.warn(f"-precision {options.precision}: convolutions in half precision, no longer Torch7's numbers")
    if options.compile:
        report.warn("-compile: sums in another order, no longer Torch7's numbers to the last bit")


@contextmanager
def _run_folder(folder: Path) -> Iterator[None]:
    """Make the run's folder, for this process alone; where a run fails before it has written anything it goes again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be made ({reason_of(error)})"
        raise XnorNetError(f"{folder}: {problem}; choose another folder with -cache") from error
    try:
        with folder_lock(folder):
            yield
    finally:
        with suppress(OSError):  # there is something in it
            for path in made:
                path.rmdir()


def _open_data(options: Options, device: torch.device, replicas: Replicas, report: Report) -> DataSource:
    part = replicas.part if replicas.size > 1 else None
    mover = Mover(CudaCopies(device)) if device.type == "cuda" else None
    unreadable_file = Path(options.save) / unreadable.FILE_NAME
    if is_cifar(options.dataset):
        pictures = unreadable.UnreadableList(report.warn, unreadable_file)
        return open_cifar(options.data, options.dataset, options.manual_seed, report.say, pictures, part, mover)
    return open_data(
        data=options.data,
        cache=options.cache,
        image_size=options.image_size,
        crop_size=options.crop_size,
        n_classes=options.n_classes,
        scaling_factor=options.scaling_factor,
        n_donkeys=options.n_donkeys,
        manual_seed=options.manual_seed,
        say=report.say,
        progress=report.progress,
        training=not options.test_only,
        picture_seconds=options.picture_timeout,
        unreadable_file=unreadable_file,
        warn=report.warn,
        allow_outside=options.allow_outside,
        part=part,
        mover=mover,
    )


def _test_only(
    options: Options,
    network: nn.Module,
    device: torch.device,
    replicas: Replicas,
    data: DataSource,
    report: Report,
    should_stop: StopRequest,
) -> int:
    binarizer = None
    if options.backend == "xnor":
        network = packed_for_test(network, device, options.binary_weight, report.say)
    elif binarizes_for_test(network, options.binary_weight, options.latent_weights, report.warn):
        binarizer = Binarizer(network)
    tester = Tester(network, criterion_of(network).to(device), binarizer, device, replicas)
    finished = test_pass(tester, data, options.batch_size, options.test_all, options.epoch_number, report, should_stop)
    return 0 if finished else should_stop.exit_code
