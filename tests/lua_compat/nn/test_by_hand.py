"""Classes that the golden files do not have: small answers worked out by hand from nn's Lua and THNN's C."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lua_compat
import lua_compat.nn as t7nn
from lua_compat.errors import ModuleError, UnknownModuleError
from lua_compat.generator import Generator
from lua_compat.values import LuaTable, TorchObject

T = torch.tensor
E1 = math.exp(-1)


def array(values: Any, *shape: int) -> np.ndarray:
    numbers = np.array(values, np.float32)
    return numbers.reshape(shape) if shape else numbers


def module(typename: str, **fields: Any) -> TorchObject:
    return TorchObject(typename, fields)


def table(*entries: Any) -> LuaTable:
    return LuaTable(list(entries))


def sizes(*numbers: int) -> np.ndarray:
    return lua_compat.storage(np.array(numbers, np.int64))


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, list) and not isinstance(ours, torch.Tensor):
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        torch.testing.assert_close(ours.detach(), torch.as_tensor(theirs).to(ours), rtol=1e-5, atol=1e-6)


LOOKUP = module("nn.LookupTable", weight=array([[1, 0], [0, 1], [2, 2]]), paddingValue=0)
PARTIAL = module(
    "nn.Sequential",
    modules=table(module("nn.ParallelTable", modules=table(module("nn.Identity"), LOOKUP)), module("nn.MM")),
)
SCALE2, NEGATE = module("nn.MulConstant", constant_scalar=2), module("nn.MulConstant", constant_scalar=-1)
PAIR = [T([[1.0, 2.0]]), T([[3.0, 4.0]])]
PICTURE = torch.arange(16.0).reshape(1, 4, 4)

CASES = [
    ("ELU", module("nn.ELU", alpha=2), T([-1.0, 3.0]), [2 * (E1 - 1), 3.0]),
    ("LeakyReLU", module("nn.LeakyReLU", negval=0.1), T([-2.0, 3.0]), [-0.2, 3.0]),
    ("ReLU6", module("nn.ReLU6"), T([-1.0, 3.0, 9.0]), [0.0, 3.0, 6.0]),
    ("ClippedReLU", module("cudnn.ClippedReLU", ceiling=2), T([-1.0, 1.0, 9.0]), [0.0, 1.0, 2.0]),
    ("Threshold", module("nn.Threshold", threshold=1, val=-5), T([0.5, 1.0, 2.0]), [-5.0, -5.0, 2.0]),
    ("SoftSign", module("nn.SoftSign"), T([-1.0, 3.0]), [-0.5, 0.75]),
    ("LogSigmoid", module("nn.LogSigmoid"), T([0.0]), [-math.log(2)]),
    ("Log", module("nn.Log"), T([1.0, math.e]), [0.0, 1.0]),
    ("Power", module("nn.Power", pow=3), T([-2.0, 3.0]), [-8.0, 27.0]),
    ("GatedLinearUnit", module("nn.GatedLinearUnit"), T([[4.0, 0.0]]), [[2.0]]),  # 4 * sigmoid(0)
    ("GatedLinearUnit_dim", module("nn.GatedLinearUnit", dim=1), T([[4.0], [0.0]]), [[2.0]]),
    ("cudnn.SoftMax", module("cudnn.SoftMax"), torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 1 / 8)),
    ("cudnn.SpatialSoftMax", module("cudnn.SpatialSoftMax"), torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 0.5)),
    ("Euclidean", module("nn.Euclidean", weight=array([[0, 3], [0, 4]])), T([[0.0, 0.0]]), [[0.0, 5.0]]),
    ("DotProduct", module("nn.DotProduct"), PAIR, [11.0]),
    ("MV", module("nn.MV"), [T([[1.0, 2.0], [3.0, 4.0]]), T([1.0, 1.0])], [3.0, 7.0]),
    ("MV_trans", module("nn.MV", trans=True), [T([[[1.0, 2.0], [3.0, 4.0]]]), T([[1.0, 1.0]])], [[4.0, 6.0]]),
    ("AddConstant_tensor", module("nn.AddConstant", constant_scalar=array([1, 2])), T([[1.0, 1.0]]), [[2.0, 3.0]]),
    ("MaskedSelect", module("nn.MaskedSelect"), [T([1.0, 2.0, 3.0]), T([1, 0, 1], dtype=torch.uint8)], [1.0, 3.0]),
    ("OneHot", module("nn.OneHot", outputSize=3), T([1, 3]), [[1.0, 0, 0], [0, 0, 1.0]]),
    ("Copy", module("nn.Copy", output=array([]).astype("f8")), T([1.5]), T([1.5], dtype=torch.float64)),
    ("Transpose", module("nn.Transpose", permutations=table(table(1, 2))), T([[1.0, 2.0]]), [[1.0], [2.0]]),
    ("PrintSize", module("nn.PrintSize", prefix="x"), T([1.0]), [1.0]),
    ("PartialLinear", module("nn.PartialLinear", network=PARTIAL, bias=array([[1, 2, 3]]), partition=array([3, 1])),
     T([[1.0, 5.0]]), [[15.0, 2.0]]),  # 2*1 + 2*5 + 3, and 1*1 + 0*5 + 1
    ("LinearNoBias", module("nn.LinearNoBias", weight=array([[1, 2]])), T([3.0, 4.0]), [11.0]),
    ("CAddTensorTable", module("nn.CAddTensorTable"), [T([1.0]), [T([2.0]), T([3.0])]], [[3.0], [4.0]]),
    ("NarrowTable", module("nn.NarrowTable", offset=2, length=2), [T([1.0]), T([2.0]), T([3.0])], [[2.0], [3.0]]),
    ("ZipTable", module("nn.ZipTable"), [[T([1.0]), T([2.0])], [T([3.0]), T([4.0])]],
     [[[1.0], [3.0]], [[2.0], [4.0]]]),
    ("ZipTableOneToMany", module("nn.ZipTableOneToMany"), [T([1.0]), [T([2.0]), T([3.0])]],
     [[[1.0], [2.0]], [[1.0], [3.0]]]),
    ("SelectTable_name", module("nn.SelectTable", index="b"), {"a": T([1.0]), "b": T([2.0])}, [2.0]),
    ("MixtureTable", module("nn.MixtureTable"), [T([[0.25, 0.75]]), [T([[4.0]]), T([[8.0]])]], [[7.0]]),
    ("MixtureTable_tensor", module("nn.MixtureTable"), [T([[0.25, 0.75]]), T([[[4.0], [8.0]]])], [[7.0]]),
    ("JustElement", module("nngraph.JustElement"), [T([1.0])], [1.0]),
    ("JustTable", module("nngraph.JustTable"), T([1.0]), [[1.0]]),
    ("Parallel", module("nn.Parallel", inputDimension=1, outputDimension=1, modules=table(SCALE2, NEGATE)),
     T([[1.0, 2.0], [3.0, 4.0]]), [2.0, 4.0, -3.0, -4.0]),
    ("DepthConcat", module("nn.DepthConcat", dimension=1, modules=table(
        module("nn.Identity"), module("nn.SpatialZeroPadding", pad_l=-1))),
     torch.ones(1, 4, 3), [[[1.0] * 3] * 4, [[0.0] * 3, [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0] * 3]]),
    ("GPU", module("nn.GPU", device=2, modules=table(SCALE2)), T([1.0]), [2.0]),
    ("CriterionTable", module("nn.CriterionTable", criterion=module("nn.MSECriterion")), [T([1.0]), T([3.0])], 4.0),
    ("ModuleFromCriterion", module("nn.ModuleFromCriterion", criterion=module("nn.MSECriterion")),
     [T([1.0]), T([3.0])], [4.0]),
    ("SpatialAdaptiveMaxPooling", module("nn.SpatialAdaptiveMaxPooling", W=1, H=2), PICTURE, [[[7.0], [15.0]]]),
    ("SpatialReplicationPadding", module("nn.SpatialReplicationPadding", pad_l=1, pad_r=0, pad_t=0, pad_b=0),
     T([[[1.0, 2.0]]]), [[[1.0, 1.0, 2.0]]]),
    ("SpatialSubSampling", module("nn.SpatialSubSampling", nInputPlane=1, kW=2, kH=2, dW=2, dH=2, weight=array([2]),
                                  bias=array([1])), PICTURE, [[[21.0, 37.0], [85.0, 101.0]]]),  # 2 * (0+1+4+5) + 1
    ("SpatialAveragePooling_2013", module("nn.SpatialAveragePooling", kW=2, kH=2, dW=2, dH=2), PICTURE,
     [[[10.0, 18.0], [42.0, 50.0]]]),  # sums: divide is younger
    ("cudnn.SpatialAveragePooling", module("cudnn.SpatialAveragePooling", kW=2, kH=2, dW=2, dH=2), PICTURE,
     [[[2.5, 4.5], [10.5, 12.5]]]),
    ("SpatialConvolutionMap", module("nn.SpatialConvolutionMap", connTable=array([[2, 1]]), kW=1, kH=1,
                                     weight=array([3], 1, 1, 1), bias=array([1])),
     T([[[1.0]], [[2.0]]]), [[[7.0]]]),
    ("SpatialConvolution_2013", module("nn.SpatialConvolution", nInputPlane=1, nOutputPlane=1, kW=1, kH=1, padding=1,
                                       weight=array([2], 1, 1), bias=array([0])),
     T([[[3.0]]]), [[[0.0, 0, 0], [0, 6.0, 0], [0, 0, 0]]]),
    ("SpatialConvolutionCUDA", module("nn.SpatialConvolutionCUDA", nInputPlane=1, nOutputPlane=2, kW=1, kH=1,
                                      weight=array([2, 3], 1, 1, 1, 2)),
     T([5.0, 7.0]).reshape(1, 1, 1, 2), [[[[10.0, 14.0]]], [[[15.0, 21.0]]]]),
    ("SpatialFullConvolution_target", module("nn.SpatialFullConvolution", nInputPlane=1, nOutputPlane=1, kW=1, kH=1,
                                             dW=2, dH=2, weight=array([3], 1, 1, 1, 1), bias=array([1])),
     [T([[[1.0]]]), torch.zeros(1, 2, 2)], [[[4.0, 1.0], [1.0, 1.0]]]),
    ("SpatialUpSamplingNearest", module("nn.SpatialUpSamplingNearest", scale_factor=2), T([[[1.0, 2.0]]]),
     [[[1.0, 1, 2, 2], [1.0, 1, 2, 2]]]),
    ("SpatialUpSamplingBilinear", module("nn.SpatialUpSamplingBilinear", owidth=3, oheight=1), T([[[1.0, 2.0]]]),
     [[[1.0, 1.5, 2.0]]]),  # corners aligned
    ("UpSampling", module("nn.UpSampling", scale_factor=2, mode="nearest"), T([1.0, 2.0]).reshape(1, 1, 1, 1, 2),
     torch.tensor([1.0, 1, 2, 2]).expand(1, 1, 2, 2, 4)),
    ("UpSampling_linear", module("nn.UpSampling", odepth=1, oheight=1, owidth=3, mode="linear"),
     T([1.0, 2.0]).reshape(1, 1, 1, 1, 2), T([1.0, 1.5, 2.0]).reshape(1, 1, 1, 1, 3)),
    ("PixelShuffle", module("nn.PixelShuffle", upscaleFactor=2), T([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1),
     [[[[1.0, 2.0], [3.0, 4.0]]]]),
    ("TemporalConvolution", module("nn.TemporalConvolution", inputFrameSize=2, outputFrameSize=1, kW=2, dW=1,
                                   weight=array([[1, 10, 100, 1000]]), bias=array([5])),
     T([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), [[4326.0], [6548.0]]),  # 1 + 20 + 300 + 4000 + 5
    ("cudnn.TemporalConvolution", module("cudnn.TemporalConvolution", inputFrameSize=2, outputFrameSize=1, kW=2, kH=2,
                                         dW=1, dH=1, padH=1, weight=array([[1, 10, 100, 1000]]), bias=array([5])),
     T([[1.0, 2.0]]), [[2105.0], [26.0]]),  # a frame of zeros before, one after
    ("VolumetricConvolution", module("nn.VolumetricConvolution", nInputPlane=1, nOutputPlane=1, kT=2, kH=1, kW=1,
                                     weight=array([1, 10], 1, 1, 2, 1, 1), bias=array([1])),
     T([2.0, 3.0]).reshape(1, 2, 1, 1), T([33.0]).reshape(1, 1, 1, 1)),
    ("VolumetricFullConvolution", module("nn.VolumetricFullConvolution", nInputPlane=1, nOutputPlane=1, kT=2, kH=1,
                                         kW=1, adjW=0, weight=array([1, 10], 1, 1, 2, 1, 1), bias=array([1])),
     T([2.0]).reshape(1, 1, 1, 1), T([3.0, 21.0]).reshape(1, 2, 1, 1)),
    ("VolumetricFullConvolution_2015", module("nn.VolumetricFullConvolution", nInputPlane=2, nOutputPlane=1, kT=1,
                                              kH=1, kW=1, pT=0, pW=0, pH=0, weight=array([2, 3], 1, 2, 1, 1, 1),
                                              bias=array([0])),
     T([1.0, 10.0]).reshape(2, 1, 1, 1), T([32.0]).reshape(1, 1, 1, 1)),
    ("cudnn.VolumetricConvolution", module("cudnn.VolumetricConvolution", nInputPlane=1, nOutputPlane=1, kT=2, kH=1,
                                           kW=1, weight=array([1, 10], 1, 1, 2, 1, 1), bias=array([1])),
     T([2.0, 3.0]).reshape(1, 2, 1, 1), T([33.0]).reshape(1, 1, 1, 1)),
    ("cudnn.VolumetricFullConvolution", module(
        "cudnn.VolumetricFullConvolution", nInputPlane=1, nOutputPlane=1, kT=2, kH=1, kW=1, adjW=0,
        weight=array([1, 10], 1, 1, 2, 1, 1), bias=array([1])),
     T([2.0]).reshape(1, 1, 1, 1), T([3.0, 21.0]).reshape(1, 2, 1, 1)),
    ("cudnn.VolumetricSoftMax", module("cudnn.VolumetricSoftMax"), torch.zeros(1, 2, 1, 1, 1),
     torch.full((1, 2, 1, 1, 1), 0.5)),
    ("cudnn.VolumetricLogSoftMax", module("cudnn.VolumetricLogSoftMax"), torch.zeros(1, 2, 1, 1, 1),
     torch.full((1, 2, 1, 1, 1), -math.log(2))),
    ("cudnn.Sigmoid", module("cudnn.Sigmoid"), T([0.0]), [0.5]),
    ("cudnn.Tanh", module("cudnn.Tanh"), T([0.0]), [0.0]),
    ("DontCast", module("nn.DontCast", castin=True, castout=True, moduleType="torch.DoubleTensor", modules=table(
        module("nn.Linear", weight=np.array([[2.0]])))), T([1.5]), [3.0]),
    ("Decorator", module("nn.Decorator", modules=table(SCALE2)), T([1.0]), [2.0]),
    ("Inception", module("nn.Inception", modules=table(SCALE2)), T([1.0]), [2.0]),
    ("Serial", module("nn.Serial", modules=table(SCALE2)), T([1.0]), [2.0]),
    ("inn.MeanSubtraction", module("inn.MeanSubtraction", mean=array([1, 2], 1, 2, 1, 1)),
     T([3.0, 3.0]).reshape(1, 2, 1, 1), T([2.0, 1.0]).reshape(1, 2, 1, 1)),
    ("inn.SpatialMaxPooling", module("inn.SpatialMaxPooling", kW=2, kH=1, dW=2, dH=1), T([[[1.0, 3.0, 2.0]]]),
     [[[3.0, 2.0]]]),  # rounded up
    ("inn.SpatialSameResponseNormalization", module(
        "inn.SpatialSameResponseNormalization", modules=table(SCALE2, NEGATE)), T([1.0]), [-2.0]),
    ("Convert_bf", module("nn.Convert", inputShape="bchw", outputShape="bf"), torch.ones(2, 1, 2, 3),
     [[1.0] * 6] * 2),
    ("Convert_b", module("nn.Convert", inputShape="bt", outputShape="b"), T([[1.0, 2.0], [3.0, 4.0]]), [1.0, 3.0]),
]  # fmt: skip


CUDNN = {  # a golden file of the nn class that it is on a GPU
    "cudnn.BatchNormalization": "BatchNormalization",
    "cudnn.LogSoftMax": "LogSoftMax_1d",
    "cudnn.SpatialBatchNormalization": "SpatialBatchNormalization",
    "cudnn.SpatialCrossMapLRN": "SpatialCrossMapLRN",
    "inn.SpatialCrossResponseNormalization": "SpatialCrossMapLRN",
    "cudnn.SpatialFullConvolution": "SpatialFullConvolution",
    "cudnn.SpatialLogSoftMax": "SpatialLogSoftMax",
    "cudnn.SpatialMaxPooling": "SpatialMaxPooling_ceil",
    "cudnn.VolumetricAveragePooling": "VolumetricAveragePooling",
    "cudnn.VolumetricBatchNormalization": "VolumetricBatchNormalization",
    "cudnn.VolumetricMaxPooling": "VolumetricMaxPooling",
}


@pytest.mark.parametrize("typename", CUDNN)
def test_a_class_of_another_package_with_the_fields_of_nns(golden: Path, typename: str) -> None:
    case = lua_compat.load(golden / "modules" / f"{CUDNN[typename]}.t7")
    source = TorchObject(typename, case["module"].fields)
    ours = t7nn.to_torch(source).eval()
    x, expected = (torch.from_numpy(np.array(case[name])) for name in ("input", "evaluateOutput"))
    same(ours(x), expected)
    assert t7nn.from_torch(ours).typename == typename
    if typename.startswith("cudnn."):
        renamed = t7nn.from_torch(ours, names="nn")
        assert renamed.typename == typename.replace("cudnn", "nn")
        same(t7nn.to_torch(renamed).eval()(x), expected)


def test_copies_on_several_gpus_are_the_module_itself(golden: Path) -> None:
    network = t7nn.to_torch(module("nn.DataParallelTable", dimension=1, modules=table(SCALE2)))
    assert network(T([1.0])).tolist() == [2.0]
    assert t7nn.from_torch(network).typename == "nn.MulConstant"


@pytest.mark.parametrize(("source", "x", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
@pytest.mark.parametrize("is_written_back", [False, True])
def test_a_module(source: TorchObject, x: Any, expected: Any, is_written_back: bool) -> None:
    ours = t7nn.to_torch(source)
    if is_written_back:
        written = t7nn.from_torch(ours)
        assert written.typename == source.typename
        ours = t7nn.to_torch(lua_compat.loads(lua_compat.dumps(written)))
    same(ours.eval()(x), expected)


CRITERIA = [
    ("BCE", module("nn.BCECriterion"), T([0.5, 0.25]), T([1.0, 0.0]), (math.log(2) - math.log(0.75)) / 2),
    ("BCE_weights", module("nn.BCECriterion", weights=array([2, 0]), sizeAverage=False), T([0.5, 0.25]),
     T([1.0, 0.0]), 2 * math.log(2)),
    ("SmoothL1", module("nn.SmoothL1Criterion"), T([0.0, 0.0]), T([0.5, 3.0]), (0.125 + 2.5) / 2),
    ("Margin", module("nn.MarginCriterion"), T([0.5, 2.0]), T([1.0, -1.0]), (0.5 + 3) / 2),
    ("MarginRanking", module("nn.MarginRankingCriterion", margin=1), [T([2.0]), T([1.5])], T([1.0]), 0.5),
    ("MarginRanking_number", module("nn.MarginRankingCriterion", margin=1), [T([2.0]), T([1.5])], -1, 1.5),
    ("DistanceRatio", module("nn.DistanceRatioCriterion"), [T([0.0]), T([0.0])], None, math.log(2)),
    ("SpatialClassNLL", module("nn.SpatialClassNLLCriterion"), T([[[[-1.0]], [[-2.0]]]]), T([[[2]]]), 2.0),
    ("SpatialCrossEntropy", module("cudnn.SpatialCrossEntropyCriterion", nll=module("nn.SpatialClassNLLCriterion")),
     torch.zeros(1, 2, 1, 1), T([[[2]]]), math.log(2)),
    ("VolumetricCrossEntropy", module(
        "cudnn.VolumetricCrossEntropyCriterion", nll=module("nn.SpatialClassNLLCriterion")),
     torch.zeros(1, 2, 1, 1, 1), T([[[[2]]]]), math.log(2)),
    ("ClassNLL_number", module("nn.ClassNLLCriterion"), T([-1.0, -2.0]), 2, 2.0),
    ("ClassSimplex", module("nn.ClassSimplexCriterion", nClasses=2, simplex=array([[1, 0], [-1, 0]])),
     T([[0.0, 0.0]]), T([2]), 0.5),
    ("SpatialAutoCropMSE", module("nn.SpatialAutoCropMSECriterion"), T([[[0.0]]]),
     torch.arange(9.0).reshape(1, 3, 3), 16.0),  # the middle of 0..8 is 4
    ("ModuleCriterion", module("nn.ModuleCriterion", criterion=module("nn.AbsCriterion"), inputModule=SCALE2),
     T([1.0]), T([5.0]), 3.0),
    ("CosineEmbedding_number", module("nn.CosineEmbeddingCriterion", margin=0), [T([1.0, 0.0]), T([1.0, 0.0])], -1,
     1.0),
    ("Parallel_repeat", module("nn.ParallelCriterion", repeatTarget=True, weights=table(1, 2), criterions=table(
        module("nn.AbsCriterion"), module("nn.MSECriterion"))), [T([1.0]), T([2.0])], T([4.0]), 11.0),  # 3 + 2 * 4
]  # fmt: skip


@pytest.mark.parametrize(("source", "x", "target", "loss"), [c[1:] for c in CRITERIA], ids=[c[0] for c in CRITERIA])
@pytest.mark.parametrize("is_written_back", [False, True])
def test_a_criterion(source: TorchObject, x: Any, target: Any, loss: float, is_written_back: bool) -> None:
    ours = t7nn.to_torch(source)
    if is_written_back:
        written = t7nn.from_torch(ours)
        assert written.typename == source.typename
        ours = t7nn.to_torch(lua_compat.loads(lua_compat.dumps(written)))
    assert ours(x, target).item() == pytest.approx(loss, rel=1e-5)


def test_two_weight_norms_in_one_network_are_two_modules() -> None:
    """Each gives 1 number: g * v / sqrt(v^2 + 1e-4) * x, with v = 1, so g / sqrt(1.0001) * x."""

    def normed(g: float) -> TorchObject:
        inner = module("nn.Linear")
        return module("nn.WeightNorm", modules=table(inner), v=array([[1]]), g=array([g]), weightSize=sizes(1, 1))

    network = t7nn.to_torch(module("nn.Sequential", modules=table(*(normed(g) for g in (2, 3, 5, 7)))))
    assert network(T([[1.0]])).item() == pytest.approx(210 / 1.0001**2, rel=1e-6)
    again = t7nn.to_torch(lua_compat.loads(lua_compat.dumps(t7nn.from_torch(network))))
    assert again(T([[1.0]])).item() == pytest.approx(210 / 1.0001**2, rel=1e-6)


def test_a_weight_norm_whose_outputs_are_its_second_dimension() -> None:
    """A transposed convolution 2 -> 1 with kernel 1: weight (2, 1, 1, 1) from the row v = {3, 4}, g = 10: {6, 8}."""
    inner = module("nn.SpatialFullConvolution", nInputPlane=2, nOutputPlane=1, kW=1, kH=1)
    source = module("nn.WeightNorm", modules=table(inner), v=array([[3, 4]]), g=array([10]), outputDim=2,
                    weightSize=sizes(2, 1, 1, 1))  # fmt: skip
    y = t7nn.to_torch(source)(T([1.0, 10.0]).reshape(1, 2, 1, 1))
    assert y.item() == pytest.approx(86, rel=1e-5)


def test_unpooling_a_volume() -> None:
    pooling = module("nn.VolumetricMaxPooling", kT=1, kH=1, kW=2)
    network = t7nn.to_torch(
        module("nn.Sequential", modules=table(pooling, module("nn.VolumetricMaxUnpooling", pooling=pooling)))
    )
    x = T([1.0, 5.0, 4.0, 2.0]).reshape(1, 1, 1, 4)
    assert network(x).flatten().tolist() == [0.0, 5.0, 4.0, 0.0]
    assert t7nn.from_torch(network)["modules"][2].typename == "nn.VolumetricMaxUnpooling"


def test_fractional_pooling_draws_from_the_generator_width_first() -> None:
    """One plane of 1x5 to 1x2... windows of THNN generate_intervals: alpha = (5 - 2) / (2 - 1) = 3, and the last at 3.

    Both rows and columns: start of the first window is int((0 + u) * 3) - int(u * 3) = 0 whatever u.
    """
    pooling = module("nn.SpatialFractionalMaxPooling", poolSizeW=2, poolSizeH=2, outW=2, outH=2)
    ours = t7nn.to_torch(pooling)
    t7nn.set_generator(ours, Generator(7))
    assert ours(torch.arange(25.0).reshape(1, 5, 5)).tolist() == [[[6.0, 9.0], [21.0, 24.0]]]
    drawn = Generator(7).fill_uniform(np.empty(2, np.float32))
    assert ours.samples.flatten().tolist() == drawn.tolist()


def starts(sample: float, n_input: int, n_output: int, pool: int) -> list[int]:
    """THNN SpatialFractionalMaxPooling.c, generate_intervals: where each window starts."""
    alpha = np.float32(n_input - pool) / np.float32(n_output - 1)
    first = [int((i + sample) * alpha) - int(sample * alpha) for i in range(n_output - 1)]
    return [*first, n_input - pool]


def test_fractional_pooling_takes_its_windows_from_the_samples() -> None:
    """Every sample is (width, height); four planes, so that the windows differ."""
    x = torch.from_numpy(np.random.default_rng(1).permutation(4 * 9 * 11).reshape(1, 4, 9, 11).astype(np.float32))
    pooling = t7nn.to_torch(module("nn.SpatialFractionalMaxPooling", poolSizeW=2, poolSizeH=3, outW=6, outH=4))
    t7nn.set_generator(pooling, Generator(7))
    samples = Generator(7).fill_uniform(np.empty((4, 2), np.float32))
    expected = torch.empty(1, 4, 4, 6)
    for plane, (width_sample, height_sample) in enumerate(samples):
        for i, top in enumerate(starts(height_sample, 9, 4, 3)):
            for j, left in enumerate(starts(width_sample, 11, 6, 2)):
                expected[0, plane, i, j] = x[0, plane, top : top + 3, left : left + 2].max()
    assert torch.equal(pooling(x), expected)


def test_fractional_pooling_in_volumes_takes_time_from_the_last_dimension() -> None:
    """THNN VolumetricFractionalMaxPooling.c: (N, C, H, W, T), every sample (time, width, height)."""
    x = torch.from_numpy(np.random.default_rng(1).permutation(3 * 7 * 8 * 9).reshape(1, 3, 7, 8, 9).astype(np.float32))
    pooling = t7nn.to_torch(
        module("nn.VolumetricFractionalMaxPooling", poolSizeT=2, poolSizeW=3, poolSizeH=2, outT=5, outW=4, outH=3)
    )
    t7nn.set_generator(pooling, Generator(7))
    samples = Generator(7).fill_uniform(np.empty((3, 3), np.float32))
    expected = torch.empty(1, 3, 3, 4, 5)
    for plane, (time_sample, width_sample, height_sample) in enumerate(samples):
        for i, top in enumerate(starts(height_sample, 7, 3, 2)):
            for j, left in enumerate(starts(width_sample, 8, 4, 3)):
                for k, first in enumerate(starts(time_sample, 9, 5, 2)):
                    window = x[0, plane, top : top + 2, left : left + 3, first : first + 2]
                    expected[0, plane, i, j, k] = window.max()
    assert torch.equal(pooling(x), expected)


def test_fractional_pooling_by_a_ratio() -> None:
    pooling = module("nn.VolumetricFractionalMaxPooling", poolSizeT=2, poolSizeW=2, poolSizeH=2, ratioT=0.75,
                     ratioW=0.5, ratioH=0.5)  # fmt: skip
    assert t7nn.to_torch(pooling)(torch.zeros(1, 1, 6, 6, 8)).shape == (1, 1, 3, 3, 6)


def test_nan_is_told() -> None:
    network = t7nn.to_torch(module("nn.NaN", modules=table(module("nn.Log"))))
    with pytest.raises(FloatingPointError, match="NaN found in the output of Log"):
        network(T([-1.0]))


def test_zero_based_targets_and_indices() -> None:
    criterion = t7nn.to_torch(module("nn.ClassNLLCriterion"), zero_based=True)
    assert criterion(T([[-1.0, -2.0]]), T([1])).item() == 2.0
    assert t7nn.from_torch(criterion)["ignoreIndex"] == -100
    lookup = t7nn.to_torch(LOOKUP, zero_based=True)
    assert lookup(T([2])).tolist() == [[2.0, 2.0]]
    assert t7nn.to_torch(LOOKUP)(T([3.0])).tolist() == [[2.0, 2.0]]


def test_an_index_below_the_first_is_refused_not_wrapped() -> None:
    with pytest.raises(IndexError):
        t7nn.to_torch(LOOKUP)(T([0]))


def test_placeholders() -> None:
    source = module("nn.Sequential", modules=table(module("nn.Identity"), module("nn.Mystery", secret=7)))
    network = t7nn.to_torch(source, unknown="placeholder")
    assert "nn.Mystery" in repr(network)
    with pytest.raises(UnknownModuleError, match=r"nn\.Mystery at modules\[2\]: only a placeholder"):
        network(T([1.0]))
    written = t7nn.from_torch(network)["modules"][2]
    assert (written.typename, written["secret"]) == ("nn.Mystery", 7)


def test_what_a_user_put_on_a_module_is_written_back() -> None:
    source = module("nn.Tanh", name="gate", factor=0.5, flag=True)
    written = t7nn.from_torch(t7nn.to_torch(source))
    assert {name: written[name] for name in ("name", "factor", "flag")} == {"name": "gate", "factor": 0.5, "flag": True}


CONVOLUTION = module("cudnn.SpatialConvolution", nInputPlane=2, nOutputPlane=2, kW=1, kH=1, groups=2,
                     weight=array([2, 3], 2, 1, 1, 1), bias=array([0, 0]))  # fmt: skip


def test_class_names_of_one_family() -> None:
    source = module("nn.Sequential", modules=table(module("cudnn.ReLU"), module("nn.Tanh"), module("nn.Identity")))
    network = t7nn.to_torch(source)

    def names(family: str) -> list[str]:
        return [child.typename for child in t7nn.from_torch(network, names=family)["modules"].to_list()]

    assert names("kept") == ["cudnn.ReLU", "nn.Tanh", "nn.Identity"]
    assert names("nn") == ["nn.ReLU", "nn.Tanh", "nn.Identity"]
    assert names("cudnn") == ["cudnn.ReLU", "cudnn.Tanh", "nn.Identity"]


def test_nn_has_no_groups() -> None:
    network = t7nn.to_torch(CONVOLUTION)
    assert t7nn.from_torch(network)["groups"] == 2
    with pytest.raises(ModuleError, match=r"cudnn\.SpatialConvolution at the root: nn has no convolution in 2 groups"):
        t7nn.from_torch(network, names="nn")


def test_cuda_tensors() -> None:
    written = t7nn.from_torch(t7nn.to_torch(CONVOLUTION), memory="cuda")
    assert (written["_type"], written["weight"].typename) == ("torch.CudaTensor", "torch.CudaTensor")


@pytest.mark.parametrize(
    ("layer", "typename"),
    [
        (nn.Conv2d(1, 1, 3, dilation=2), "nn.SpatialDilatedConvolution"),
        (nn.Conv2d(2, 2, 3, groups=2), "cudnn.SpatialConvolution"),
        (nn.Conv3d(1, 1, 3, dilation=2), "nn.VolumetricDilatedConvolution"),
        (nn.MaxPool2d(2, dilation=2), "nn.SpatialDilatedMaxPooling"),
        (nn.AvgPool3d(2, padding=1), "cudnn.VolumetricAveragePooling"),
        (nn.BatchNorm1d(3), "nn.BatchNormalization"),
        (nn.Embedding(3, 2), "nn.LookupTable"),
        (nn.GLU(), "nn.GatedLinearUnit"),
        (nn.ConvTranspose2d(1, 1, 2), "nn.SpatialFullConvolution"),
        (nn.LocalResponseNorm(5), "nn.SpatialCrossMapLRN"),
        (nn.MSELoss(), "nn.MSECriterion"),
        (nn.Dropout(0.3), "nn.Dropout"),
        (nn.Softmax(dim=1), "nn.SoftMax"),
        (nn.LogSoftmax(dim=1), "nn.LogSoftMax"),
    ],
)
def test_modules_made_in_pytorch_become_the_class_that_can_do_it(layer: nn.Module, typename: str) -> None:
    written = t7nn.from_torch(layer)
    assert written.typename == typename
    t7nn.to_torch(written)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(2, 2, 3, groups=2, dilation=2),
        nn.AvgPool2d(2, divisor_override=1),
        nn.BatchNorm2d(2, track_running_stats=False),
    ],
)
def test_what_no_torch7_class_can_do_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ModuleError, match="has no Torch7 class"):
        t7nn.from_torch(layer)


def test_inplace_modules_overwrite_their_input() -> None:
    x = T([1.0, 2.0])
    t7nn.to_torch(module("nn.MulConstant", constant_scalar=2, inplace=True))(x)
    assert x.tolist() == [2.0, 4.0]


def test_a_sum_in_place_leaves_the_layer_before_it_its_own_output() -> None:
    """SqueezeNet: relu(x) + y with nn.CAddTable(true). By hand: the gradient of x is 1 where x > 0, whatever y is.

    Torch7 looks for the sum in the ReLU's place and lets the gradient of -1 pass as well (-1 -> 0 + 5 > 0).
    """
    x = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    rectified, other = nn.ReLU()(x), torch.tensor([[5.0, -7.0]])
    total = t7nn.table.CAddTable(inplace=True)([rectified, other])
    assert total.tolist() == [[5.0, -5.0]]
    total.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0]]
    with torch.no_grad():
        assert (
            t7nn.table.CAddTable(inplace=True)([rectified, other]) is rectified
        )  # in place where no gradient is wanted


def test_features_without_a_batch_dimension_are_a_batch_of_one() -> None:
    """nn.View in front drops the dimension of a batch of one. By hand: (3 - 1) / sqrt(4) = 1, nothing is updated."""
    layer = t7nn.normalization.BatchNormalization(1, eps=0.0)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.fill_(1.0)
    layer.running_var.fill_(4.0)
    for training in (True, False):
        assert layer.train(training)(torch.tensor([3.0])).tolist() == [[1.0]]
    assert layer.running_mean.item() == 1.0
