"""The demo behind `scripts/demo`: data, training, test, reload, and what came of it as a table and a picture.

Every step is a command that could be typed by hand; each is shown before it runs. The network is the full alexnetxnor,
the pictures are scikit-learn's handwritten digits in ImageNet's layout. Exit code 1 if the reloaded network does not
give the figures of the trained one.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from lua_compat.logger import read_log

# Three epochs of the recipe's second regime and one of its third, which brings the learning rate down.
FIRST_EPOCH, LAST_EPOCH = 27, 30
TRAIN = ["-nClasses", "10", "-netType", "alexnetxnor", "-binaryWeight", "-optimType", "adam", "-batchSize", "32",
         "-epochSize", "36", "-epochNumber", str(FIRST_EPOCH), "-nEpochs", str(LAST_EPOCH - FIRST_EPOCH + 1),
         "-nDonkeys", "1", "-testAll"]  # fmt: skip


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo").resolve()  # the steps run in the project's folder
    data, cache = folder / "digits", folder / "cache"
    start = time.perf_counter()
    if not (data / "train").is_dir():
        step("cache_tools", "demo-data", data)
    step("cache_tools", "caches", "build", data, cache, "--samples", 500)
    step("main.py", "-data", data, "-cache", cache, *TRAIN)
    trained = newest_run(cache)
    model = trained / f"model_{LAST_EPOCH}.t7"
    for epoch in range(FIRST_EPOCH, LAST_EPOCH):  # 1.2 GB each
        (trained / f"model_{epoch}.t7").unlink()
        (trained / f"optimState_{epoch}.t7").unlink()
    for state in trained.glob("state_*"):  # to resume from, 1.6 GB; the run is over
        state.unlink()
    step("main.py", "-data", data, "-cache", cache, "-nClasses", 10, "-batchSize", 32, "-nDonkeys", 1, "-testAll",
         "-retrain", model, "-testOnly", "-binaryWeight")  # fmt: skip
    reloaded = newest_run(cache)
    step("cache_tools", "plot", trained, "--output", folder / "curves.png")
    is_equal = show(trained, reloaded, model, folder / "curves.png", time.perf_counter() - start)
    return 0 if is_equal else 1


def step(program: str, *arguments: object) -> None:
    """Run one command of the project, shown as it would be typed; ends the demo where it fails."""
    words = ["-m", program] if program == "cache_tools" else [program]
    command = [*words, *map(str, arguments)]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True, cwd=Path(__file__).parent.parent)


def newest_run(cache: Path) -> Path:
    return max((path.parent for path in cache.glob("*/*/options.json")), key=lambda path: path.stat().st_mtime)


def show(trained: Path, reloaded: Path, model: Path, picture: Path, seconds: float) -> bool:
    """Print the table of epochs and of the reloaded network; whether its figures are those of the last epoch."""
    training, testing, again = (
        read_log(trained / "train.log"),
        read_log(trained / "test.log"),
        read_log(reloaded / "test.log"),
    )
    table = Table(title="alexnetxnor, binary weights and inputs, on 358 handwritten digits it has not seen")
    for column in ("", "training loss", "training top-1", "test loss", "test top-1"):
        table.add_column(column, justify="left" if not column else "right")
    train_columns = ("avg loss (train set)", "% top1 accuracy (train set)")
    test_columns = ("avg loss (test set)", "% top1 accuracy (test set) ")
    for row, epoch in enumerate(range(FIRST_EPOCH, LAST_EPOCH + 1)):
        figures = [training[c][row] for c in train_columns] + [testing[c][row] for c in test_columns]
        table.add_row(f"epoch {epoch}", *(f"{figure:.2f}" for figure in figures))
    table.add_row("reloaded from .t7", "", "", *(f"{again[c][0]:.2f}" for c in test_columns))
    Console().print(table)
    is_equal = all(again[column][0] == testing[column][-1] for column in testing)
    print("The reloaded network gives the same figures." if is_equal else "The reloaded network gives OTHER figures.")
    print(f"{model}  the network, as Torch7 reads it\n{picture}  the curves\n{seconds:.0f} s in all")
    return is_equal


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: the command above failed (exit code {error.returncode})")
    except KeyboardInterrupt:
        sys.exit(130)
