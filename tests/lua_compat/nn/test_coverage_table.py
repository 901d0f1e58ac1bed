"""The table of classes in docs/nn.md is made here, from the registry; no class of torch/nn is missing without a reason.

After a change: UPDATE_DOCS=1 python -m pytest tests/lua_compat/nn/test_coverage_table.py
"""

import os
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from torch import nn

import lua_compat
from lua_compat.nn.registry import module_classes, registered_typenames
from lua_compat.values import LuaTable, TorchObject

TESTS = Path(__file__).parent
ROOT = TESTS.parents[2]
BEGIN, END = "<!-- classes: begin -->", "<!-- classes: end -->"

# The classes that the files of torch/nn make (a fact, not text of theirs).
NAMES = """
Abs AbsCriterion Add AddConstant BCECriterion BatchNormalization Bilinear Bottle CAdd CAddTable CAddTensorTable
CDivTable CMaxTable CMinTable CMul CMulTable CReLU CSubTable Clamp ClassNLLCriterion ClassSimplexCriterion Collapse
Concat ConcatTable Constant Container Contiguous Convert Copy Cosine CosineDistance CosineEmbeddingCriterion
Criterion CriterionTable CrossEntropyCriterion Decorator DepthConcat DistKLDivCriterion DistanceRatioCriterion
DontCast DotProduct Dropout ELU Euclidean Exp FeatureLPPooling FlattenTable GPU GatedLinearUnit GradientReversal
HardShrink HardTanh HingeEmbeddingCriterion Identity Index IndexLinear JoinTable Kmeans L1Cost
L1HingeEmbeddingCriterion L1Penalty LayerNormalization LeakyReLU Linear LinearWeightNorm Log LogSigmoid LogSoftMax
LookupTable MM MSECriterion MV MapTable MarginCriterion MarginRankingCriterion MaskedSelect Max Maxout Mean Min
MixtureTable Module ModuleCriterion Mul MulConstant MultiCriterion MultiLabelMarginCriterion
MultiLabelSoftMarginCriterion MultiMarginCriterion NaN Narrow NarrowTable Normalize OneHot PReLU Padding
PairwiseDistance Parallel ParallelCriterion ParallelTable PartialLinear PixelShuffle Power PrintSize Profile RReLU
ReLU ReLU6 Replicate Reshape Select SelectTable Sequential Sigmoid SmoothL1Criterion SoftMarginCriterion SoftMax
SoftMin SoftPlus SoftShrink SoftSign SparseLinear SpatialAdaptiveAveragePooling SpatialAdaptiveMaxPooling
SpatialAutoCropMSECriterion SpatialAveragePooling SpatialBatchNormalization SpatialClassNLLCriterion
SpatialContrastiveNormalization SpatialConvolution SpatialConvolutionLocal SpatialConvolutionMM
SpatialConvolutionMap SpatialCrossMapLRN SpatialDepthWiseConvolution SpatialDilatedConvolution
SpatialDilatedMaxPooling SpatialDivisiveNormalization SpatialDropout SpatialFractionalMaxPooling
SpatialFullConvolution SpatialFullConvolutionMap SpatialLPPooling SpatialLogSoftMax SpatialMaxPooling
SpatialMaxUnpooling SpatialReflectionPadding SpatialReplicationPadding SpatialSoftMax SpatialSubSampling
SpatialSubtractiveNormalization SpatialUpSamplingBilinear SpatialUpSamplingNearest SpatialZeroPadding SplitTable
Sqrt Square Squeeze StochasticGradient Sum Tanh TanhShrink TemporalConvolution TemporalDynamicKMaxPooling
TemporalMaxPooling TemporalRowConvolution TemporalSubSampling Threshold Transpose Unsqueeze UpSampling View
VolumetricAveragePooling VolumetricBatchNormalization VolumetricConvolution VolumetricDilatedConvolution
VolumetricDilatedMaxPooling VolumetricDropout VolumetricFractionalMaxPooling VolumetricFullConvolution
VolumetricMaxPooling VolumetricMaxUnpooling VolumetricReplicationPadding WeightNorm WeightedEuclidean
WeightedMSECriterion WhiteNoise ZeroGrad ZipTable ZipTableOneToMany
"""

WITHOUT = {
    "nn.Module": "the base class of modules; no file holds one",
    "nn.Container": "the base class of containers; no file holds one",
    "nn.Criterion": "the base class of criterions; no file holds one",
    "nn.Kmeans": "a trainer of its own with no backward; nothing in a network",
    "nn.StochasticGradient": "a training loop, not a module",
    "cudnn.SpatialDivisiveNormalization": "its cuDNN function is gone and no reference answers exist",
    "cudnn.RNN": "weights packed by cuDNN, no reference answers; also cudnn.LSTM, GRU, BLSTM, BGRU, RNNReLU, RNNTanh",
}


@pytest.fixture(scope="module")
def golden_names() -> set[str]:
    """Every class that a golden file holds."""
    found: set[str] = set()
    seen: set[int] = set()
    folder = ROOT / "tests" / "golden"
    waiting: list[Any] = [lua_compat.load(p) for kind in ("modules", "criterions") for p in folder.glob(f"{kind}/*")]
    kept = list(waiting)  # alive, so that no address is used twice
    while waiting:
        value = waiting.pop()
        if isinstance(value, TorchObject | LuaTable) and id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, TorchObject):
                found.add(value.typename)
            if not isinstance(value, TorchObject) or isinstance(value.payload, LuaTable):
                waiting += value.values()
    assert kept
    return found


def classes_of(typename: str) -> list[type[nn.Module]]:
    """What the reader says it gives; a reader without annotations gives the one class that is written so."""
    reader = registered_typenames()[typename]
    own_class = getattr(reader, "__self__", None)
    if isinstance(own_class, type):
        return [own_class]
    given = get_type_hints(reader).get("return")
    written = module_classes(typename)
    several = getattr(given, "__args__", ())  # of these, those that are written under this name
    return [c for c in written if c in several] if several else [given] if given else written


def becomes(typename: str) -> str:
    if typename == "nn.DataParallelTable":
        return "its module"
    return ", ".join(sorted({f"`{c.__name__}`" for c in classes_of(typename)}))


def kind(typename: str) -> str:
    """How much of it is PyTorch's."""
    classes = set(classes_of(typename))
    if all(c.__module__.startswith("torch.nn") for c in classes):
        return "torch.nn"
    bases = {b for c in classes for b in c.__mro__[1:] if b.__module__.startswith("torch.nn")} - {nn.Module}
    return "torch.nn, extended" if bases else "own"


def test_no_class_of_torch_nn_is_missing_without_a_reason() -> None:
    missing = {f"nn.{name}" for name in NAMES.split()} - set(registered_typenames()) - set(WITHOUT)
    assert not missing
    assert not set(WITHOUT) & set(registered_typenames())


def test_the_table_in_the_documentation_is_the_registry(golden_names: set[str]) -> None:
    tests = "\n".join(path.read_text() for path in TESTS.glob("test_*.py") if path != Path(__file__))
    quoted = set(re.findall(r'"([a-z]+\.\w+)"', tests))
    rows = ["| Torch7 | becomes | from | checked |", "|---|---|---|---|"]
    for typename in sorted(registered_typenames(), key=str.lower):
        if any(not c.__module__.startswith(("torch.nn", "lua_compat.nn")) for c in classes_of(typename)):
            continue  # registered by xnornet_port or by a test
        checked = "golden" if typename in golden_names else "by hand" if typename in quoted else ""
        rows.append(f"| {typename} | {becomes(typename)} | {kind(typename)} | {checked} |")
    rows += ["", "Not covered:", ""] + [f"* `{name}`: {reason}." for name, reason in WITHOUT.items()]
    path = ROOT / "docs" / "nn.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    expected = f"{before}{BEGIN}\n\n" + "\n".join(rows) + f"\n\n{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(expected)
    assert path.read_text() == expected, "run UPDATE_DOCS=1 python -m pytest tests/lua_compat/nn/test_coverage_table.py"


def test_every_class_is_checked_by_some_test(golden_names: set[str]) -> None:
    text = (ROOT / "docs" / "nn.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| ") and line.endswith("|  |")] == []
