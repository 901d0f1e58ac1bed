"""The CUDA backend's own matters: every kernel, its launches, and what it says where there is no GPU.

The kernels run on the CPU (cuda_shim.py). Expected values: torch's convolution of the signs in double, exact.
"""

import contextlib
import ctypes
import importlib.abc
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cuda_shim import OnGpu, ShimDevice, can_use_gpu  # conftest.py has put this folder on the path
from torch.nn import functional

from xnornet_port import XnorModel, XnorNetError, load_model
from xnornet_port.kernels import (
    Backend,
    Geometry,
    PackedInput,
    Thresholds,
    pack_input,
    pack_weights,
    xnor_conv2d,
    xnor_dot,
    xnor_sign,
)
from xnornet_port.kernels.cuda import CudaBackend
from xnornet_port.kernels.cuda_device import CupyDevice, Device, kernel_source, open_device
from xnornet_port.kernels.cuda_tiles import KERNELS, TILES, Tile, choose_tile, has_tensor_core, pack_lanes


def on_cpu_tensors(device: Device, tile: Tile) -> Backend:
    """The backend with this kernel, for tensors of the CPU."""
    if isinstance(device, ShimDevice):
        return CudaBackend(device, tile.name)
    if tile.family == "tensor" and not has_tensor_core(device.capability):
        pytest.skip("no one-bit tensor core")
    return OnGpu(CudaBackend(device, tile.name))


def signs(shape: tuple[int, ...], seed: int, zero_share: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return values * (torch.rand(shape, generator=generator) >= zero_share)


@pytest.fixture(params=["simulated", "on the GPU"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    if request.param == "simulated":
        return ShimDevice(request.getfixturevalue("cuda_library"), (9, 0), 1)
    if not can_use_gpu():
        pytest.skip("no GPU, or no CuPy")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the float layers around the binary ones
    return open_device(0)


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
@pytest.mark.parametrize("channels", [160, 256], ids=["odd words", "even words"])
@pytest.mark.parametrize("input_zeros", [0.0, 0.1])
@pytest.mark.parametrize("weight_zeros", [0.0, 0.1])
def test_every_tile_is_exact(
    device: Device, tile: Tile, channels: int, input_zeros: float, weight_zeros: float
) -> None:
    """More output pixels and filters than the largest tile has rows and columns, and no multiple of either."""
    backend = on_cpu_tensors(device, tile)
    x, weight = signs((2, channels, 9, 8), 1, input_zeros), signs((131, channels, 3, 2), 2, weight_zeros)
    packed = pack_weights(weight)
    expected = functional.conv2d(x.double().sign(), weight.double().sign(), padding=1).int()
    assert torch.equal(xnor_dot(x, packed, padding=1, backend=backend), expected)
    middle = torch.zeros(131, dtype=torch.int32)
    at_zero = Thresholds(middle, middle - 1, torch.zeros(131, dtype=torch.bool))  # sign, and + where the sum is 0
    result = xnor_sign(x, packed, at_zero, padding=1, backend=backend)
    bits = (result.signs[..., None] >> torch.arange(64) & 1).flatten(3)
    assert torch.equal(bits[..., :131].bool(), expected.permute(0, 2, 3, 1) < 0)
    assert not bits[..., 131:].any()


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
def test_strides_and_dilation(device: Device, tile: Tile) -> None:
    """Windows with gaps, more padding than a kernel's side, another stride each way; no word is full."""
    x, weight = signs((3, 40, 11, 7), 9), signs((70, 40, 3, 2), 10)
    expected = functional.conv2d(x.double().sign(), weight.double().sign(), None, (2, 1), (3, 4), (2, 3)).int()
    packed = pack_weights(weight)
    assert torch.equal(xnor_dot(x, packed, (2, 1), (3, 4), (2, 3), on_cpu_tensors(device, tile)), expected)


def test_a_whole_network(device: Device, golden: Path) -> None:
    """Binary layers that hand bits to each other, pooling and the float layers around them: to the bit as by NumPy."""
    model = XnorModel.from_model(load_model(golden / "models" / "tiny_xnor.t7"), backend="reference")
    x = signs((2, 3, 224, 224), 11)
    expected = model(x)
    if isinstance(device, ShimDevice):
        model.use_backend(CudaBackend(device))
        found = model(x)
        assert {"xnor_pixel_info", "xnor_pool_signs"} <= device.launched
        assert torch.equal(found, expected)
    else:
        found = model.cuda()(x.cuda()).cpu()
        assert model.backend == "cuda"
        assert torch.equal(found.argmax(1), expected.argmax(1))  # cuDNN's first layer sums in another order


def test_only_blocks_with_a_zero_pay(cuda_library: ctypes.CDLL) -> None:
    """One zero in the first of two pictures of 128 pixels: the second picture's block never reads the mask.

    Shown by giving it a wrong one: bits that say 0 for all of the second picture, while its info says there is none.
    """
    x, weight = signs((2, 64, 16, 8), 3), signs((8, 64, 1, 1), 4)
    x[0, 5, 0, 0] = 0
    backend = CudaBackend(ShimDevice(cuda_library, (9, 0), 1))
    bits = backend._pack(x)
    assert bits.nonzero is not None
    bits.nonzero[1] = 0
    out = torch.empty(2, 8, 16, 8, dtype=torch.int32)
    backend._convolve(bits, pack_weights(weight), Geometry(), 1, out, None, (None, None, None))
    assert torch.equal(out, functional.conv2d(x.double().sign(), weight.double().sign()).int())


@pytest.mark.parametrize("channels", [1, 64, 65, 520, 1100])
def test_packing_of_many_channels(cuda_library: ctypes.CDLL, channels: int) -> None:
    """More words than a block makes at a time, and fewer; the sums are those of the signs."""
    x = signs((2, channels, 3, 5), channels, 0.01)
    backend = CudaBackend(ShimDevice(cuda_library, (9, 0), 1))
    bits = backend._pack(x)
    sums = x.sign().sum(1).int()
    has_zero = (x == 0).any(1).int()
    assert torch.equal(bits.info, 2 * sums + has_zero)
    again = backend._bits(PackedInput(bits.signs, bits.nonzero, channels))
    assert torch.equal(again.info, bits.info)


def test_packed_bits_at_any_address(cuda_library: ctypes.CDLL) -> None:
    """Views of packed bits that start 8 bytes off, or step over others."""
    backend = CudaBackend(ShimDevice(cuda_library, (9, 0), 1))
    x, weight = signs((3, 128, 4, 4), 5), signs((9, 128, 3, 3), 6)
    packed, bits = pack_weights(weight), pack_input(x, backend)
    shifted = torch.cat([torch.zeros(1, dtype=torch.int64), bits.signs.flatten()])[1:].view(bits.signs.shape)
    assert shifted.data_ptr() % 16 == 8
    expected = xnor_dot(x, packed, backend=backend)
    assert torch.equal(xnor_dot(PackedInput(shifted, None, 128), packed, backend=backend), expected)
    every_second = PackedInput(bits.signs[::2], None, 128)
    assert torch.equal(xnor_dot(every_second, packed, backend=backend), expected[::2])


def test_weights_are_prepared_once(cuda_library: ctypes.CDLL) -> None:
    device = ShimDevice(cuda_library, (9, 0), 1)
    backend = CudaBackend(device)
    x, packed = signs((1, 64, 4, 4), 7), pack_weights(signs((8, 64, 3, 3), 8))
    first = xnor_conv2d(x, packed, backend=backend)
    assert "xnor_place_sums" in device.launched
    device.launched.clear()
    assert torch.equal(xnor_conv2d(x, packed, backend=backend), first)
    assert "xnor_place_sums" not in device.launched


def test_kernel_is_chosen_by_the_gpu_and_the_work() -> None:
    def chosen(capability: tuple[int, int], rows: int, columns: int) -> str:
        return choose_tile(capability, 132, rows, columns).name

    assert chosen((9, 0), 256 * 169, 384) == "tensor_128x128"
    assert chosen((8, 0), 256 * 169, 384) == "tensor_128x128"
    assert chosen((8, 9), 256 * 3136, 64) == "tensor_128x64"  # half of 128 columns would idle
    assert chosen((9, 0), 256, 4096) == "tensor_128x64"  # 64 blocks of the largest are too few for 132
    assert chosen((9, 0), 169, 384) == "tensor_32x32"
    for capability in [(7, 5), (10, 0), (12, 0)]:
        assert chosen(capability, 256 * 169, 384) == "popcount_64x64"
        assert chosen(capability, 1, 4096) == "popcount_32x32"


def test_tiles_fit_the_gpus() -> None:
    """64 KiB is what a block may have from Turing on; an A100 or H100 takes two blocks, an 8.6 or 8.9 (100 KiB) one."""
    for tile in TILES:
        assert tile.shared_bytes <= 64 * 1024
    assert 2 * (max(tile.shared_bytes for tile in TILES) + 1024) <= 164 * 1024
    assert [pack_lanes(words) for words in (1, 2, 3, 4, 5, 8, 9, 64)] == [1, 2, 4, 4, 8, 8, 8, 8]


def test_a_bias_after_a_factor_comes_to_the_result() -> None:
    """Weights packed on the CPU, pictures and factor on a GPU; here on the device that has no numbers."""

    class Elsewhere:
        def xnor_conv2d(self, x: torch.Tensor, packed: object, geometry: object) -> torch.Tensor:
            return torch.empty(1, 2, 1, 1, device="meta")

    packed = pack_weights(torch.ones(2, 3, 1, 1), torch.ones(2))
    factor = torch.ones(1, 1, 1, 1, device="meta")
    result = xnor_conv2d(torch.ones(1, 3, 1, 1), packed, backend=Elsewhere(), factor=factor)  # type: ignore[arg-type]
    assert result.device.type == "meta"


def test_too_many_pixels_are_refused() -> None:
    backend = CudaBackend(SimpleNamespace(capability=(9, 0), n_multiprocessors=1))  # type: ignore[arg-type]
    huge = PackedInput(torch.zeros(1, dtype=torch.int64).expand(2**11, 2**10, 2**10, 1), None, 64)
    with pytest.raises(XnorNetError, match="2147483648 pixels are too many for the CUDA backend"):
        xnor_dot(huge, pack_weights(torch.ones(1, 64, 1, 1)), backend=backend)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    packed = pack_weights(torch.ones(1, 1, 1, 1))
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(XnorNetError, match="needs an NVIDIA GPU and this torch is built without CUDA; choose backend"):
        xnor_conv2d(torch.ones(1, 1, 1, 1), packed, backend="cuda")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(XnorNetError, match="torch finds no GPU"):
        xnor_conv2d(torch.ones(1, 1, 1, 1), packed, backend="cuda")


def test_input_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(XnorNetError, match=r"needs its input on the GPU, this one is on cpu: x.cuda\(\)"):
        pack_input(torch.ones(1, 1, 1, 1), "cuda")


@pytest.mark.parametrize(
    ("cuda", "wheel"), [("12.8", "cupy-cuda12x"), ("13.0", "cupy-cuda13x"), (None, "cupy-cuda13x")]
)
def test_without_cupy(monkeypatch: pytest.MonkeyPatch, cuda: str | None, wheel: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(XnorNetError, match=f"backend 'cuda' needs CuPy: pip install {wheel} "):
        open_device.__wrapped__(0)


class FakeCupy:
    """What `CupyDevice` uses of CuPy, recording. That CuPy is used rightly only a GPU can show."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self.options: tuple[str, ...] = ()
        self.cuda = SimpleNamespace(
            Device=lambda index: contextlib.nullcontext(),
            Stream=SimpleNamespace(from_external=self._stream),  # ExternalStream warns in 14.0
            compiler=SimpleNamespace(CompileException=KeyError),
        )
        self._problem = problem

    @contextlib.contextmanager
    def _stream(self, stream: Any) -> Any:
        version, handle = stream.__cuda_stream__()
        assert version == 0
        self.calls.append(("stream", handle))
        yield

    def RawModule(self, code: str, options: tuple[str, ...]) -> Any:  # CuPy's name
        assert code == kernel_source()
        self.options = options
        return SimpleNamespace(compile=self._compile, get_function=self._function)

    def _compile(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _function(self, name: str) -> Any:
        def kernel(grid: Any, block: Any, arguments: Any, shared_mem: int) -> None:
            self.calls.append((name, grid, block, arguments, shared_mem))

        return kernel


@pytest.mark.usefixtures("one_gpu")
def test_torchs_default_stream_is_the_legacy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """cudaStreamLegacy is 1; CuPy would read 0 as the thread's own where it is told so by its environment variable."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=0))
    cupy = FakeCupy()
    CupyDevice(cupy, 0).launch("xnor_pixel_info", (5,), 256, 0, ())
    assert cupy.calls[0] == ("stream", 1)


def test_a_cupy_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its explanation is a page between two lines of ===, the error at its end (cupy/__init__.py)."""

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "cupy":
                raise ImportError("\n====\nFailed to import CuPy.\n\nOriginal error:\n  OSError: no libcudart\n====\n")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(XnorNetError, match=r"\(missing here: OSError: no libcudart\); or choose"):
        open_device.__wrapped__(0)


def test_an_older_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(__version__="13.6.0"))  # type: ignore[arg-type]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(XnorNetError, match=r"needs CuPy 14 or later, this is 13.6.0: pip install --upgrade cupy-cuda"):
        open_device.__wrapped__(0)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: SimpleNamespace(cuda_stream=77))


@pytest.mark.usefixtures("one_gpu")
def test_launch_on_torchs_stream() -> None:
    cupy = FakeCupy()
    device = CupyDevice(cupy, 0)
    assert (device.capability, device.n_multiprocessors) == ((9, 0), 132)
    assert cupy.options == ("--std=c++17",)
    tensor = torch.ones(3)
    device.launch("xnor_pixel_info", (5,), 256, 0, (tensor, None, 7))
    assert cupy.calls[0] == ("stream", 77)
    name, grid, block, arguments, shared = cupy.calls[1]
    assert (name, grid, block, shared) == ("xnor_pixel_info", (5,), (256,), 0)
    assert [(type(value), int(value)) for value in arguments] == [
        (np.uint64, tensor.data_ptr()),
        (np.uint64, 0),
        (np.int32, 7),
    ]


@pytest.mark.usefixtures("one_gpu")
def test_a_failed_compilation_is_one_line() -> None:
    with pytest.raises(
        XnorNetError, match=r"CuPy cannot compile the CUDA kernels: no nvrtc; pip install 'cupy-cuda13x\[ctk\]'"
    ):
        CupyDevice(FakeCupy(RuntimeError("no nvrtc\nsecond line")), 0)


def test_all_kernels_are_listed() -> None:
    """KERNELS names what xnor.cu defines: directly, or by one of the two macros."""
    source = kernel_source()
    for name in KERNELS:
        assert f"    {name}(const" in source or f"_KERNEL({name}," in source
