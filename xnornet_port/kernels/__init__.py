"""Convolutions of signs with signs: XNOR and popcount on packed bits (XNOR-Net paper, section 3.2).

    packed = pack_weights(weight, bias)                       # once
    y = xnor_conv2d(x, packed, stride=1, padding=1)           # float in, float out
    bits = xnor_sign(x, packed, thresholds, padding=1)        # packed bits for the next binary layer
    y = xnor_conv2d(bits, packed_next, backend="cpu")

The integer dot products are exact in every backend; a float result is one fused multiply-add of it,
alpha * dot + bias. Backends: "cpu" (C, chosen by what the processor has), "cuda", "reference" (NumPy, the definition).
"""

from xnornet_port.kernels.backends import BACKENDS, Backend, load_backend
from xnornet_port.kernels.geometry import Geometry, Pooling
from xnornet_port.kernels.operations import pack_input, xnor_conv2d, xnor_dot, xnor_sign
from xnornet_port.kernels.packing import PackedInput, PackedWeights, Thresholds, pack_weights

__all__ = [
    "BACKENDS",
    "Backend",
    "Geometry",
    "PackedInput",
    "PackedWeights",
    "Pooling",
    "Thresholds",
    "load_backend",
    "pack_input",
    "pack_weights",
    "xnor_conv2d",
    "xnor_dot",
    "xnor_sign",
]
