"""Real inputs with binary weights as a product of matrices (BWN): the weights stay bits (native/sums.h)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.nn import functional

from xnornet_port.kernels.native_library import Sums, load_library

__all__ = ["can_sum", "signed_sums"]

# Below so many additions starting a second thread costs more than it saves.
_WORTH_A_THREAD = 1 << 20


def can_sum(x: Tensor, alpha: Tensor) -> bool:
    """Whether `signed_sums` takes these: float32 on the CPU, and the library is there."""
    is_float = all(tensor.is_cpu and tensor.dtype == torch.float32 for tensor in (x, alpha))
    return is_float and load_library() is not None


def signed_sums(x: Tensor, signs: Tensor, alpha: Tensor, bias: Tensor | None) -> Tensor:
    """alpha * sum of +-x, plus bias: float32 (N, O); no gradient.

    x is float32 (N, K), signs uint8 (O, ceil(K / 8)) with bit k % 8 of byte k // 8 set where weight k is negative,
    alpha and bias float32 (O). `can_sum` has to be true. Sums are in an order of their own: as exact as those of
    torch.nn.functional.linear, but not the same to the bit.
    """
    library = load_library()
    if library is None:
        raise RuntimeError("the C library is not there: ask can_sum first")
    n_filters, n_bytes = signs.shape
    n_missing = 8 * n_bytes - x.shape[1]
    x = (functional.pad(x, (0, n_missing)) if n_missing else x).contiguous()  # pad copies even by nothing
    signs, alpha = signs.contiguous(), alpha.contiguous()
    bias = None if bias is None else bias.contiguous()
    out = torch.empty(len(x), n_filters, dtype=torch.float32, device=x.device)
    sums = Sums(rows=len(x), filters=n_filters, bytes=n_bytes, threads=1)
    sums.x, sums.signs, sums.alpha, sums.out = x.data_ptr(), signs.data_ptr(), alpha.data_ptr(), out.data_ptr()
    sums.bias = None if bias is None else bias.data_ptr()
    if 8 * n_bytes * n_filters * len(x) >= _WORTH_A_THREAD and (threads := torch.get_num_threads()) > 1:
        sums.threads, sums.parallel = threads, library.parallel_here()
    library.functions.xnor_sum_signed(ctypes.byref(sums))
    return out
