"""Networks of .t7 files: what they become, what they answer, and how they are written back."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.errors import ModuleError, UnknownModuleError
from lua_compat.nn import registry
from lua_compat.values import LuaTable, TorchObject


def relu() -> TorchObject:
    return TorchObject("nn.ReLU", {"inplace": False})


def test_plain_pytorch_where_equal(golden: Path) -> None:
    network = t7nn.load(golden / "models" / "tiny_bwn.t7")
    block = network[0]
    assert [type(m) for m in block] == [nn.Conv2d, t7nn.normalization.SpatialBatchNormalization, nn.ReLU]
    assert isinstance(block[1], nn.BatchNorm2d)
    assert type(network[1]) is nn.MaxPool2d


def test_written_networks_have_their_class_names_fields_and_numbers(golden: Path) -> None:
    source = lua_compat.load(golden / "models" / "tiny_bwn.t7")
    written = lua_compat.loads(lua_compat.dumps(t7nn.from_torch(t7nn.to_torch(source))))
    same_module(written, source, "root")


def same_module(ours: TorchObject, theirs: TorchObject, place: str) -> None:
    assert ours.typename == theirs.typename, place
    assert set(theirs) <= set(ours) | {"train"}, place
    for name, value in theirs.items():
        if name == "modules":
            for position, (a, b) in enumerate(zip(ours[name].to_list(), value.to_list(), strict=True), start=1):
                same_module(a, b, f"{place}[{position}]")
        elif name.startswith("grad") and name != "gradInput":
            assert ours[name].shape == value.shape, (place, name)
        elif isinstance(value, np.ndarray):
            assert ours[name].typename == value.typename, (place, name)
            np.testing.assert_array_equal(ours[name], value, err_msg=f"{place}.{name}")
        else:
            assert ours[name] == value, (place, name)


def test_gradients_are_written_as_the_optimiser_left_them() -> None:
    layer = nn.Conv2d(1, 1, 1)
    layer.weight.grad = torch.full_like(layer.weight, 3.0)
    written = t7nn.from_torch(layer)
    assert written["gradWeight"].tolist() == [[[[3.0]]]]
    assert written["gradBias"].tolist() == [0.0]  # it has none yet


def test_flattened_parameters_stay_on_one_storage(golden: Path) -> None:
    source = lua_compat.load(golden / "modules" / "flattened_parameters.t7")
    flat = source["module"] if isinstance(source["module"], TorchObject) else source
    arrays = parameter_arrays(flat)
    assert len({id(owner(a)) for a in arrays}) == 1
    module = t7nn.to_torch(flat)
    first, second = list(module.parameters())[:2]
    assert second.data_ptr() == first.data_ptr() + first.numel() * first.element_size()
    again = lua_compat.loads(lua_compat.dumps(t7nn.from_torch(module)))
    assert len({id(owner(a)) for a in parameter_arrays(again)}) == 1


def parameter_arrays(module: TorchObject) -> list[np.ndarray]:
    own = [module[name] for name in ("weight", "bias") if name in module]
    children = module["modules"].to_list() if "modules" in module else []
    return own + [array for child in children for array in parameter_arrays(child)]


def owner(array: np.ndarray) -> object:
    return array if array.base is None or not isinstance(array.base, np.ndarray) else owner(array.base)


def test_tensors_shared_in_the_file_are_one_parameter() -> None:
    weight, bias = np.ones((2, 3, 1, 1), np.float32), np.zeros(2, np.float32)

    def layer() -> TorchObject:
        return TorchObject("nn.SpatialConvolution", {"nInputPlane": 3, "nOutputPlane": 2, "kW": 1, "kH": 1,
                                                     "weight": weight[:], "bias": bias[:]})  # fmt: skip

    network = t7nn.to_torch(TorchObject("nn.Sequential", {"modules": LuaTable([layer(), layer()])}))
    assert network[0].weight is network[1].weight


def test_one_module_used_twice_stays_one(golden: Path) -> None:
    shared = relu()
    network = t7nn.to_torch(TorchObject("nn.Sequential", {"modules": LuaTable([shared, shared])}))
    assert network[0] is network[1]
    written = t7nn.from_torch(network)["modules"]
    assert written[1] is written[2]


def test_one_picture_without_a_batch_dimension_answers_as_a_batch_of_one(golden: Path) -> None:
    """Torch7 users call net:forward(picture) in evaluation; in training it is refused, as Torch7 does.

    Batch normalisation gives it a batch dimension (nn/BatchNormalization.lua makeBatch; so do the networks of
    golden/nets.t7 that have nn.BatchNormalization, whose answers are (1, 10) where the others' are (10)).
    """
    layer = t7nn.load(golden / "models" / "tiny_bwn.t7")[0].eval()
    picture = torch.randn(3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(layer(picture), layer(picture[None]))
    with pytest.raises(ValueError, match="expected 4D input"):
        layer.train()(picture)


def test_a_batch_of_one_is_trained_with_the_running_statistics() -> None:
    """nn/BatchNormalization.lua: train and input:size(1) > 1. By hand: (x - mean) / sqrt(var + eps) * weight + bias."""
    layer = t7nn.normalization.SpatialBatchNormalization(1, eps=0.0).train()
    layer.running_mean.fill_(1.0)
    layer.running_var.fill_(4.0)
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.bias.fill_(0.5)
        output = layer(torch.tensor([[[[5.0, -1.0]]]]))
    assert output.tolist() == [[[[6.5, -2.5]]]]  # (5 - 1) / 2 * 3 + 0.5 and (-1 - 1) / 2 * 3 + 0.5
    assert (layer.running_mean.item(), layer.running_var.item()) == (1.0, 4.0)


def test_batch_normalisation_of_2015_kept_the_inverse_deviation(golden: Path) -> None:
    module = lua_compat.load(golden / "crafted" / "bn_v1_running_std.t7")
    # the file was made by hand with these two fields only
    layer = t7nn.to_torch(
        TorchObject("nn.SpatialBatchNormalization", {**module, "running_mean": np.zeros(2, np.float32)})
    )
    # running_std = 1 / sqrt(var + eps), so var = running_std^-2 - eps
    expected = [1 / s**2 - module["eps"] for s in module["running_std"].tolist()]
    assert layer.running_var.tolist() == pytest.approx(expected, rel=1e-5)


def test_an_unknown_class_is_named_with_its_place() -> None:
    network = TorchObject("nn.Sequential", {"modules": LuaTable([relu(), TorchObject("nn.Mystery", {})])})
    with pytest.raises(UnknownModuleError, match=r"nn\.Mystery at modules\[2\]: .*register\('nn\.Mystery'\)"):
        t7nn.to_torch(network)


def test_a_missing_field_is_named_with_its_place() -> None:
    network = TorchObject("nn.Sequential", {"modules": LuaTable([TorchObject("nn.SpatialConvolution", {"kW": 3})])})
    with pytest.raises(ModuleError, match=r"nn\.SpatialConvolution at modules\[1\]: field nInputPlane is missing"):
        t7nn.to_torch(network)


def test_a_weight_of_the_wrong_shape_is_refused() -> None:
    layer = TorchObject("nn.SpatialConvolution", {"nInputPlane": 3, "nOutputPlane": 2, "kW": 1, "kH": 1,
                                                  "weight": np.ones((2, 4, 1, 1), np.float32)})  # fmt: skip
    with pytest.raises(ModuleError, match="field weight should have shape 2x3x1x1, found 2x4x1x1"):
        t7nn.to_torch(layer)


def test_a_file_without_a_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.t7"
    lua_compat.save(path, {"mean": [1, 2]})
    with pytest.raises(ModuleError, match=r"table\.t7: holds LuaTable, not a network"):
        t7nn.load(path)


def test_a_network_inside_a_table_is_shown() -> None:
    with pytest.raises(ModuleError, match=r"one of its entries: \['model'\]: nn\.ReLU"):
        t7nn.to_torch(LuaTable({"model": relu(), "epoch": 3}))


def test_a_pytorch_module_without_a_torch7_class_is_named() -> None:
    with pytest.raises(UnknownModuleError, match=r"Hardswish at modules\[1\]"):
        t7nn.from_torch(nn.Sequential(nn.Hardswish()))


def test_places_count_a_module_that_stands_in_two() -> None:
    twice = nn.ReLU()
    with pytest.raises(UnknownModuleError, match=r"Hardswish at modules\[3\]"):
        t7nn.from_torch(nn.Sequential(twice, twice, nn.Hardswish()))


@pytest.mark.parametrize("wrong", [{"names": "foo"}, {"memory": "gpu"}])
def test_unknown_ways_to_write_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"names is one of .*, memory of"):
        t7nn.from_torch(nn.ReLU(), **wrong)


def test_a_class_of_ones_own() -> None:
    @t7nn.register("nn.Doubled")
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    module = t7nn.to_torch(TorchObject("nn.Doubled", {}))
    assert isinstance(module, Doubled)
    assert t7nn.from_torch(module).typename == "nn.Doubled"


@pytest.fixture
def own_classes() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    tables = (registry._READERS, registry._WRITERS)
    kept = [dict(table) for table in tables]
    yield
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.update(before)  # type: ignore[arg-type]


GIVE_BOTH = r": give the class to_t7\(self, out\) and from_t7\(cls, fields\), as in \S+$"


@pytest.mark.usefixtures("own_classes")
@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_parameters_of_a_class_without_fields_are_not_lost(kind: str) -> None:
    @t7nn.register("nn.Weighted")
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scratch", torch.zeros(2), persistent=False)
            w = torch.ones(2)
            if kind == "parameter":
                self.w = nn.Parameter(w)
            else:
                self.register_buffer("w", w)

    with pytest.raises(
        ModuleError, match=rf"^modules\[2\]: Weighted has no to_t7 of its own, its w would be lost{GIVE_BOTH}"
    ):
        t7nn.from_torch(nn.Sequential(nn.ReLU(), Weighted()))
    with pytest.raises(
        ModuleError, match=rf"^nn.Weighted at the root: Weighted has no from_t7 of its own to read its w{GIVE_BOTH}"
    ):
        t7nn.to_torch(TorchObject("nn.Weighted", {}))


@pytest.mark.usefixtures("own_classes")
def test_parameters_of_a_layer_without_fields_are_not_lost() -> None:
    """Layer's own to_t7 and from_t7 know its settings only."""

    @t7nn.register("nn.Scaled")
    class Scaled(t7nn.Layer):
        size: int

        def __post_init__(self) -> None:
            self.w = nn.Parameter(torch.ones(self.size))

    lost = rf"^the root: Scaled has no to_t7 of its own, its w would be lost{GIVE_BOTH}"
    with pytest.raises(ModuleError, match=lost):
        t7nn.from_torch(Scaled(2))
    with pytest.raises(ModuleError, match=rf"Scaled has no from_t7 of its own to read its w{GIVE_BOTH}"):
        t7nn.to_torch(TorchObject("nn.Scaled", {"size": 2}))


@pytest.mark.usefixtures("own_classes")
def test_settings_of_a_class_without_fields_are_not_lost() -> None:
    @t7nn.register("nn.Times")
    class Times(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

    with pytest.raises(
        ModuleError, match=rf"^the root: Times has no to_t7 of its own, its factor would be lost{GIVE_BOTH}"
    ):
        t7nn.from_torch(Times(2.0))
    needs = r"^nn.Times at the root: Times cannot be made without its argument factor"
    with pytest.raises(ModuleError, match=needs + GIVE_BOTH):
        t7nn.to_torch(TorchObject("nn.Times", {}))


@pytest.mark.usefixtures("own_classes")
def test_defaults_of_a_class_without_fields_need_no_fields() -> None:
    @t7nn.register("nn.Boxed")
    class Boxed(nn.Module):
        def __init__(self, size: int = 2, inner: nn.Module | None = None) -> None:
            super().__init__()
            self.size = (size, size)
            self.inner = inner or nn.ReLU()
            self.register_buffer("scratch", torch.zeros(2), persistent=False)
            self.n_calls = 0

    used = Boxed()
    used.n_calls = 3
    written = t7nn.from_torch(used)
    assert written.typename == "nn.Boxed"
    assert isinstance(t7nn.to_torch(written), Boxed)
    for module, lost in ((Boxed(3), "size"), (Boxed(inner=nn.Tanh()), "modules")):
        with pytest.raises(ModuleError, match=f"Boxed has no to_t7 of its own, its {lost} would be lost"):
            t7nn.from_torch(module)


@pytest.mark.usefixtures("own_classes")
def test_a_class_that_only_reads_writes_the_fields_it_came_with() -> None:
    @t7nn.register("nn.Reading")
    class Reading(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        @classmethod
        def from_t7(cls, fields: t7nn.Fields) -> "Reading":
            return cls(float(fields.number("factor")))

    module = t7nn.to_torch(TorchObject("nn.Reading", {"factor": 3.0}))
    assert t7nn.from_torch(module)["factor"] == 3.0
    with pytest.raises(ModuleError, match="Reading has no to_t7 of its own, its factor would be lost"):
        t7nn.from_torch(Reading(3.0))


@pytest.mark.parametrize(
    ("shape", "size", "n_input_dims", "expected"),
    [  # by hand from nn/View.lua's rule
        ((8, 5, 1, 1), (5,), None, (8, 5)),
        ((1, 5, 1, 1), (5,), None, (5,)),  # a batch of one loses its dimension
        ((1, 5, 1, 1), (5,), 3, (1, 5)),
        ((4, 6), (2, 3), None, (4, 2, 3)),
        ((4, 6), (-1, 3), None, (8, 3)),
        ((4, 6), (-1, 3), 1, (4, 2, 3)),
    ],
)
def test_view(shape: tuple[int, ...], size: tuple[int, ...], n_input_dims: int | None, expected: tuple) -> None:
    assert t7nn.View(size, n_input_dims)(torch.zeros(shape)).shape == expected


def test_view_refuses_what_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) cannot be viewed as \(4,\)"):
        t7nn.View((4,))(torch.zeros(2, 3))


def test_class_nll_counts_classes_from_one() -> None:
    probabilities = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    loss = t7nn.ClassNLLCriterion()(probabilities.log(), torch.tensor([2, 1]))
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2, rel=1e-6)
