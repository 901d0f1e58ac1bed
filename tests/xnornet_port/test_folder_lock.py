"""One process at a time in the folder of a run."""

import subprocess
import sys
from pathlib import Path

import pytest

from xnornet_port.errors import XnorNetError
from xnornet_port.folder_lock import folder_lock


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from xnornet_port.folder_lock import folder_lock\n"
        "with folder_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(XnorNetError, match="another process runs in this folder"), folder_lock(tmp_path):
            pass
        other.kill()
    with folder_lock(tmp_path):
        pass
