"""The command line: help and usage; and how commands end that do not come to their end."""

import os
import subprocess
import sys

import pytest

from cpubn import cli


def test_no_command_prints_help():
    words = [sys.executable, "-m", "cpubn"]
    done, asked = (subprocess.run([*words, *more], capture_output=True, text=True, timeout=60) for more in ([], ["-h"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == asked.stdout
    assert "demo" in done.stdout


@pytest.mark.parametrize(
    ("words", "usage", "wrong"),
    [
        (["info", "--jsno"], "cpubn info", "unrecognized arguments: --jsno"),
        (["info", "more", "--json"], "cpubn info", "unrecognized arguments: more"),
        (["demo", "--wrong"], "cpubn demo", "unrecognized arguments: --wrong"),
        (["bench", "--wrong", "3"], "cpubn bench", "unrecognized arguments: --wrong 3"),
        (["norms", "a.npz", "--wrong"], "cpubn norms", "unrecognized arguments: --wrong"),
        (["norms"], "cpubn norms", "the following arguments are required: FILE"),
        (["--wrong", "info"], "cpubn", "unrecognized arguments: --wrong"),
        (["--wrong"], "cpubn", "unrecognized arguments: --wrong"),
        (["inform"], "cpubn", "inform"),
    ],
)
def test_wrong_words_show_the_usage_of_their_command(words, usage, wrong, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(words)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"usage: {usage} [-h]")
    assert wrong in printed.err.splitlines()[-1]


@pytest.mark.parametrize("command", ["info", *cli.COMMANDS])
def test_help_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([command, "--help"])
    assert f"Example: cpubn {command}" in capsys.readouterr().out


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
