"""The list behind `scripts/reproduce`: published figures, and what it takes to check each with this code.

It prints and runs nothing. IMAGENET in a command stands for the folder with train/CLASS and val/CLASS, shorter sides
256, CIFAR for an unpacked distribution. Times marked "estimate" were not measured.

"README" is that of allenai/XNOR-Net, "paper" Rastegari et al., arXiv 1603.05279: its tables 1 to 3 and sections 3 and 4
were read for this list, as was the README of fb.resnet.torch. The figures of He et al. and of Bi-Real Net are as the
READMEs of akamaster/pytorch_resnet_cifar10 and of ReActNet quote them.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import asdict, dataclass

# The estimates are made from what was measured: 1170 pictures read a second and core (benchmarks/results/loader.md),
# 22 to 25 trained a second on 2 cores (benchmarks/results/train_step.md). Training cannot outrun the reading.
TEST_TIME = "50,000 pictures: on 2 cores some 20 minutes; both paths are computed on the processor"
BWN_TIME = "55 epochs of 320,000 pictures: 15 minutes of reading on 16 cores at best; on 2 cores without a GPU a week"
XNOR_TIME = "55 epochs of 1.2 million pictures: an hour of reading on 16 cores at best; on 2 cores and no GPU a month"
RESNET_TIME = "58 epochs of 1.28 million pictures: an hour of reading on 16 cores at best, and more work than AlexNet"
RESNET_NOTE = (
    "sizes of 256 to 480 (-scalingFactor), batches and epochs are the paper's; its rates (from 0.1, less at epochs 30 "
    "and 40) are described too loosely to be followed, the recipe of this code takes their place"
)
IMAGENET = "ImageNet (ILSVRC 2012)"
GPU = f"{IMAGENET}, one GPU, 16 cores"


@dataclass(frozen=True)
class Figure:
    """One published figure. `command` is empty where this code has no way to it, and `note` says why."""

    source: str
    what: str
    published: str
    command: str
    needs: str = ""
    time: str = ""
    is_estimate: bool = True
    note: str = ""


FILE = "the published file and cache.tar (README of allenai/XNOR-Net)"
FIGURES = (
    Figure(
        "README", "alexnet_BWN.t7", "56.8 top-1",
        "python -m cache_tools parity --data IMAGENET --cache cache --model alexnet_BWN.t7",
        f"{FILE}, {IMAGENET}", TEST_TIME,
    ),
    Figure(
        "README", "alexnet_XNOR.t7", "43.3 top-1",
        "python -m cache_tools parity --data IMAGENET --cache cache --model alexnet_XNOR.t7",
        f"{FILE}, {IMAGENET}", TEST_TIME,
    ),
    Figure(
        "paper, table 1", "AlexNet, BWN, trained anew", "56.8 top-1, 79.4 top-5",
        "python main.py -data IMAGENET -batchSize 128 -netType alexnet -binaryWeight -dropout 0.1 -testAll",
        GPU, BWN_TIME,
        note="the original's command (its README); the paper tells of 16 epochs with batches of 512 (section 4.2)",
    ),
    Figure(
        "paper, table 1", "AlexNet, XNOR, trained anew", "44.2 top-1, 69.2 top-5",
        "python main.py -data IMAGENET -batchSize 800 -netType alexnetxnor -binaryWeight -optimType adam "
        "-epochSize 1500 -testAll",
        GPU, XNOR_TIME,
        note="the original's command, there on 4 GPUs (-nGPU 4: batch normalisation over 200 pictures each); its "
        "README has 43.3 for its network, which lacks the input scale of the next line",
    ),
    Figure(
        "paper, section 3.2", "AlexNet, XNOR with the input scale K", "44.2 top-1, 69.2 top-5",
        "python main.py -data IMAGENET -batchSize 800 -netType alexnetxnor -binaryWeight -optimType adam "
        "-epochSize 1500 -inputScale -testAll",
        GPU, XNOR_TIME,
        note="section 3.2 describes K; the released code, and so the command above, leaves it out, which costs less "
        "than 1 % top-1 (section 4.2)",
    ),
    Figure(
        "paper, table 1", "AlexNet, full precision", "56.6 top-1, 80.2 top-5",
        "python main.py -data IMAGENET -batchSize 128 -netType alexnet -testAll", GPU, BWN_TIME,
    ),
    Figure(
        "paper, table 2", "ResNet-18, BWN", "60.8 top-1, 83.0 top-5",
        "python main.py -data IMAGENET -batchSize 256 -epochSize 5000 -nEpochs 58 -netType resnet -depth 18 "
        "-scalingFactor 0.875 -binaryWeight -testAll",
        GPU, RESNET_TIME, note=RESNET_NOTE,
    ),
    Figure(
        "paper, table 2", "ResNet-18, XNOR", "51.2 top-1, 73.2 top-5",
        "python main.py -data IMAGENET -batchSize 256 -epochSize 5000 -nEpochs 58 -netType resnetxnor -depth 18 "
        "-scalingFactor 0.875 -binaryWeight -optimType adam -testAll",
        GPU, RESNET_TIME, note=f"the network after the paper's words: its file was not released; {RESNET_NOTE}",
    ),
    Figure(
        "paper, table 2", "ResNet-18, full precision", "69.3 top-1, 89.2 top-5",
        "python main.py -data IMAGENET -batchSize 256 -epochSize 5000 -nEpochs 90 -netType resnet -depth 18 -testAll",
        GPU, "90 epochs of 1.28 million pictures: an hour and a half of reading on 16 cores at best",
        note="the paper took fb.resnet.torch, whose README has 69.57 and 89.24 (errors of 30.43 and 10.76), with a "
        "recipe and augmentation of its own, which are not here",
    ),
    Figure(
        "paper, table 2", "GoogLenet, BWN", "65.5 top-1, 86.1 top-5", "",
        note="of Darknet's extraction network, 21 convolutions without branches (section 4.2), which is not here; "
        "googlenet and googlenetbn are soumith's",
    ),
    Figure(
        "paper, table 3", "AlexNet, the scale alpha from a layer that learns it, BWN", "46.2 top-1, 69.5 top-5", "",
        note="a layer behind the binary convolution multiplies each output plane by a number it learns, as -scheme "
        "xnor++ does, but here that has binary inputs",
    ),
    Figure(
        "paper, table 3", "AlexNet, block C-B-A-P in place of B-A-C-P, XNOR", "30.3 top-1, 57.5 top-5", "",
        note="the block in the usual order is no scheme here; docs/extending.md tells how to add one",
    ),
    Figure(
        "paper, section 4.2", "BinaryNet's network for CIFAR-10, XNOR", "10.17 errors",
        "python main.py -data CIFAR -dataset cifar10 -netType vggsmall -epochSize 391 -binaryWeight -optimType adam "
        "-testAll",
        "CIFAR-10, one GPU", "55 epochs of 50,000 pictures of 32x32: under two hours on a GPU",
        note="vggsmall has one classifier in place of that network's three linear layers; the paper gives no recipe",
    ),
    Figure(
        "paper, section 3.1", "32 times less memory for weights", "32",
        "python -m cache_tools convert model_1.t7 model_1.xnor.safetensors",
        "a network trained with -netType alexnetxnor -binaryWeight", "seconds",
        note="the whole file shrinks by less: its first and last layer stay real",
    ),
    Figure(
        "paper, section 4.1", "58 times faster convolutions on a CPU", "58",
        "python benchmarks/xnor_conv.py", "a processor with a C compiler, idle", "minutes",
        note="the paper leaves out the time to allocate and to reach memory; here it counts, and today's float "
        "convolutions are far quicker than those of 2016",
    ),
    Figure(
        "Bi-Real Net (arXiv 1808.00278)", "ResNet-18, Bi-Real", "56.4 top-1",
        "python main.py -data IMAGENET -batchSize 256 -epochSize 5000 -nEpochs 58 -netType resnetxnor -depth 18 "
        "-scheme bireal -binaryWeight -optimType adam -testAll",
        GPU, RESNET_TIME, note="the paper starts from a network trained with real weights and a clip function",
    ),
    Figure(
        "He et al. (arXiv 1512.03385), table 6", "ResNet-20, CIFAR-10, full precision", "8.75 errors",
        "python main.py -data CIFAR -dataset cifar10 -netType resnet -depth 20 -shortcutType A -epochSize 391 "
        "-nEpochs 164 -LR 0.1 -weightDecay 0.0001 -testAll",
        "CIFAR-10, one GPU", "164 epochs of 50,000 pictures of 32x32: under two hours on a GPU",
        note="-LR is one rate for all epochs; the paper divides it by 10 after 32,000 and 48,000 batches "
        "(go on with -retrain, -optimState and a smaller -LR)",
    ),
    Figure(
        "this project", "real Torch7's recorded runs, batch by batch", "equal",
        "python -m pytest tests/golden_runs -s", "none", "a minute on 2 cores", is_estimate=False,
    ),
    Figure(
        "this project", "schemes on handwritten digits (docs/experiments.md)", "its table",
        "python benchmarks/schemes.py", "scikit-learn", "some five minutes on one core", is_estimate=False,
    ),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for programs")
    if parser.parse_args().json:
        print(json.dumps([asdict(figure) for figure in FIGURES], indent=2))
        return 0
    for figure in FIGURES:
        print(f"{figure.source}: {figure.what}: {figure.published}")
        print(f"    {figure.command}" if figure.command else "    cannot be checked with this code")
        if figure.needs:
            time = f"{figure.time} (estimate)" if figure.is_estimate else figure.time
            print(textwrap.indent(textwrap.fill(f"needs {figure.needs}. {time}", 110), "    "))
        if figure.note:
            print(textwrap.indent(textwrap.fill(f"note: {figure.note}", 110), "    "))
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
