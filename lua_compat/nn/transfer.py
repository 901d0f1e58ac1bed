"""Transfer functions (nn/ReLU.lua, nn/LogSoftMax.lua, cudnn.torch ReLU.lua)."""

from __future__ import annotations

import torch
from torch import nn

from lua_compat.nn.fields import Fields
from lua_compat.nn.network_writer import FieldWriter
from lua_compat.nn.registry import register, writes

__all__ = ["LogSoftMax"]


@register("nn.ReLU", "cudnn.ReLU")
def relu(fields: Fields) -> nn.ReLU:
    return nn.ReLU(inplace=fields.boolean("inplace", default=False))


@writes(nn.ReLU, "nn.ReLU")
def relu_fields(module: nn.ReLU, out: FieldWriter) -> dict[str, object]:
    return {"inplace": module.inplace, "threshold": 0, "val": 0}


@register("nn.LogSoftMax", "cudnn.LogSoftMax")
class LogSoftMax(nn.Module):
    """log(softmax(x)) over the features as Torch7 finds them: of (C), (N, C), (C, H, W) or (N, C, H, W) it is C."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x, dim=0 if x.dim() in (1, 3) else 1)
