"""Ranks of torch.distributed over gloo on 127.0.0.1, as processes of their own: what a script prints on each."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
TIME = 120  # seconds


def run(count, store, case, *arguments):
    """(exit status, stdout, stderr) of `python sync_ranks.py case ...` on each rank; `store`: a file to be made."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS.parents[1]), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / "sync_ranks.py"), str(store), str(count)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), case, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(count)
    ]
    try:
        outputs = [p.communicate(timeout=TIME) for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    return [(p.returncode, *output) for p, output in zip(processes, outputs, strict=True)]
