"""How commands end that do not come to their end: Ctrl-C, and a reader that has left."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_ctrl_c_ends_quietly(command):
    """The command sends itself the signal: a test that sends it must guess when."""
    program = (
        f"import signal, sys; from cpubn import cli, {command}; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs inherit it ignored
        f"{command}.run = lambda options: signal.raise_signal(signal.SIGINT); "
        f"sys.exit(cli.main(['{command}']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "cpubn: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no EPIPE")
@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_reader_that_has_left_ends_quietly(options):
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as stdout:
        words = [sys.executable, *options, "-m", "cpubn", "info"]
        done = subprocess.run(words, stdout=stdout, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
