"""Torch7's dimensions, counted from 1 and from the sample, as PyTorch's."""

from __future__ import annotations

import torch

__all__ = ["feature_dimension", "from_zero"]


def feature_dimension(x: torch.Tensor) -> int:
    """Where C is in (C), (N, C), (C, H, W), (N, C, H, W) or (N, C, T, H, W)."""
    return 0 if x.dim() in (1, 3) else 1


def from_zero(dimension: int, n_dims: int, n_input_dims: int | None = None) -> int:
    """A dimension counted from 1 (or from -1 at the end) in a tensor of `n_dims` dimensions.

    `n_input_dims` is the number of dimensions of one sample, where the module knows it: with one more the first is the
    batch's (_getPositiveDimension of nn's Sum, Max, JoinTable and SplitTable).
    """
    if dimension < 0:
        return n_dims + dimension
    if n_input_dims and n_dims == n_input_dims + 1:
        return dimension
    return dimension - 1
