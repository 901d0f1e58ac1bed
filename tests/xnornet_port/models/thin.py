"""Networks with an eighth of their planes, so that a step of each takes part of a second."""

from torch import nn

from lua_compat.nn import View

PART = 8


def thinned(network: nn.Sequential, n_classes: int) -> nn.Sequential:
    """The network in place, all its widths but 3 and `n_classes` divided by 8; parameters have no values."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.in_channels, module.out_channels = (
                width(n, n_classes) for n in (module.in_channels, module.out_channels)
            )
            resize(module, (module.out_channels, module.in_channels, *module.kernel_size))
        elif isinstance(module, nn.Linear):
            module.in_features, module.out_features = (
                width(n, n_classes) for n in (module.in_features, module.out_features)
            )
            resize(module, (module.out_features, module.in_features))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.num_features = width(module.num_features, n_classes)
            resize(module, (module.num_features,))
        elif isinstance(module, View):
            module.__init__(tuple(width(n, n_classes) for n in module.size), module.n_input_dims)  # type: ignore[misc]
    return network


def width(n: int, n_classes: int) -> int:
    if n in (3, n_classes, -1):
        return n
    assert n % PART == 0, n
    return n // PART


def resize(module: nn.Module, shape: tuple[int, ...]) -> None:
    """New tensors for the module's parameters and statistics, without values."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        size = shape if name == "weight" else shape[:1]
        setattr(module, name, nn.Parameter(parameter.new_empty(size)))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.dim():
            setattr(module, name, buffer.new_zeros(shape))
