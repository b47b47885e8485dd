"""The tests of the kernels under GCC's sanitizers, on a copy of this checkout: `nox -s sanitize` and `nox -s races`.

    python tools/sanitize.py {address,thread} [--isa NAME ...] [--fuzz SECONDS] [tests ...]

The copy stands in build/sanitized/, so that the ordinary extensions stay as they are. Its constants are small: small
arrays are cut in chunks, groups, blocks and units, are shared out among threads and are written past the cache. It
ends with status 1 where a test fails or a sanitizer reports anything, in any process, and prints what it reports. The
last line of all is a row for docs/sanitizers.md.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import copies
from copies import CHECKOUT

COMPILED = "cpubn/backends/compiled"
# Digests and formulas of many millions of elements; the room on the stack that calls without checks in them take.
IGNORED = [f"--ignore=tests/backends/test_{name}.py" for name in ("bits", "lane_formulas", "stack")]
# And what is of libgomp, whose place OpenMP on pthreads takes.
OPENMP = "--deselect=tests/backends/test_threads.py::test_openmp_limits_the_threads"
LEFT_OUT = {"address": IGNORED, "thread": [*IGNORED, OPENMP]}

# (file, what stands there once, what stands there in the copy).
SMALL = [
    (f"{COMPILED}/order.pxd", " CHUNK = 65536\n", " CHUNK = 256\n"),
    (f"{COMPILED}/order.pxd", " TALL = 1024\n", " TALL = 16\n"),
    ("cpubn/maths/order.py", "\nCHUNK = 65536\n", "\nCHUNK = 256\n"),
    ("cpubn/maths/order.py", "\nTALL = 1024\n", "\nTALL = 16\n"),
    (f"{COMPILED}/sharing.pxd", " GROUP_COLUMNS = 1024 ", " GROUP_COLUMNS = 64 "),
    (f"{COMPILED}/sharing.pxd", " GROUP_BYTES = 524288 ", " GROUP_BYTES = 4096 "),
    (f"{COMPILED}/sharing.pxd", " SHORT_BYTES = 65536 ", " SHORT_BYTES = 1024 "),
    (f"{COMPILED}/sharing.pxd", " UNIT = 16384 ", " UNIT = 128 "),
    (f"{COMPILED}/sharing.pxd", " LONG = 960 ", " LONG = 96 "),
    (f"{COMPILED}/sharing.pxd", " TRANSPOSED_BYTES = 16384 ", " TRANSPOSED_BYTES = 1024 "),
    (f"{COMPILED}/chunks.pxd", " TILE = 65536 ", " TILE = 1024 "),
    (f"{COMPILED}/sums.pxd", " AHEAD = 1024 ", " AHEAD = 64 "),
    (f"{COMPILED}/planner.pxd", " SMALL_BYTES = 32768 ", " SMALL_BYTES = 256 "),
    (f"{COMPILED}/planner.pyx", " SIGNS = 65536 ", " SIGNS = 256 "),
    (f"{COMPILED}/machine.hpp", " most = 32ll << 20;", " most = 20ll << 10;"),
    ("cpubn/backends/threads.py", "\nSERIAL_BYTES = 1 << 17\n", "\nSERIAL_BYTES = 256\n"),
]
OTHERS = [
    ("cpubn/machine/isa.py", '"-O3", "-g0", ', '"-O1", "-g1", '),  # of the stacks in reports
    ("setup.py", ' ["-Wl,--strip-all"] if ', " [] if "),  # and the names in them
    # All in one function each, the loops take a compiler hours that writes checks into them.
    (f"{COMPILED}/vectors.hpp", " CPUBN_INLINE inline __attribute__((always_inline))\n", " CPUBN_INLINE inline\n"),
]

FLAGS = {
    "address": "-fsanitize=address,undefined -fsanitize-recover=address,undefined -fno-omit-frame-pointer",
    "thread": "-fsanitize=thread -fno-omit-frame-pointer",
}
# UndefinedBehaviorSanitizer in each extension: a library beside ASan's, it has ASan set the file of its reports for it.
LINKED = {"address": " -static-libubsan -Wl,--exclude-libs,libubsan.a", "thread": ""}
# libstdc++ is there before ASan looks for what throws, which Python itself does not load.
LIBRARIES = {"address": ["libasan.so", "libstdc++.so"], "thread": ["libtsan.so"]}
EACH = "halt_on_error=0:print_stacktrace=1"
OPTIONS = {
    # Python keeps what it has to its end, which is no leak of ours; sizes that no machine has are hostile arguments.
    "ASAN_OPTIONS": f"{EACH}:detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1:handle_segv=2",
    "UBSAN_OPTIONS": EACH,
    # Python and NumPy are not instrumented: of their own accesses TSan sees parts. Tests fork.
    "TSAN_OPTIONS": f"{EACH}:ignore_noninstrumented_modules=1:die_after_fork=0:allocator_may_return_null=1:exitcode=0",
}
# What must be reported, or a report of nothing says nothing: too large a sum, an array of more than its memory, and an
# output of several threads; and by what words.
CONTROL = "int add(int a, int b) { return a + b; }\n"
CONTROLS = {
    "address": """
import ctypes, numpy as np, cpubn
ctypes.CDLL("./control.so").add(2**31 - 1, 1)
cpubn.moments(np.lib.stride_tricks.as_strided(np.ones((4, 3, 8), "f4"), (4, 3, 9)))
""",
    "thread": """
import threading, numpy as np, cpubn
x = np.ones((4, 3, 800), "f4")
start = threading.Barrier(4)

def work():
    start.wait()
    for _ in range(50):
        cpubn.batch_norm(x, None, None, training=True, out=x)

team = [threading.Thread(target=work) for _ in range(4)]
for thread in team:
    thread.start()
for thread in team:
    thread.join()
""",
}
WORDS = {"address": ["signed integer overflow", "SUMMARY: AddressSanitizer"], "thread": ["data race"]}


def changed(name, content, isa):
    """A file as it stands in the copy."""
    for path, old, new in SMALL + OTHERS:
        if path == name:
            times = content.count(old.encode())
            if times != 1:
                sys.exit(f"{name} must have {old!r} once, for it to be {new!r}, and has it {times} times")
            content = content.replace(old.encode(), new.encode())
    if name == "cpubn/machine/isa.py" and isa is not None:
        names = ["baseline", *isa]
        content += f"\nINSTRUCTION_SETS = tuple(i for i in INSTRUCTION_SETS if i.name in {names})\n".encode()
    return content


def library(name):
    command = ["gcc", f"-print-file-name={name}"]
    path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    if not path.is_absolute():
        sys.exit(f"GCC has no {name}: install its sanitizers")
    return str(path.resolve())


def build(kind, to, isa):
    """The copy's extensions, and for ThreadSanitizer, which knows nothing of libgomp, OpenMP on pthreads."""
    copies.copy(to, lambda name, content: changed(name, content, isa))
    compiled = f"{FLAGS[kind]} -include {to / 'tools' / 'checked_intrinsics.hpp'}"
    given = {"CC": "gcc", "CXX": "g++", "CFLAGS": compiled, "CXXFLAGS": compiled, "LDFLAGS": FLAGS[kind] + LINKED[kind]}
    copies.build(sys.executable, to, given)
    preloaded = [library(name) for name in LIBRARIES[kind]]
    if kind == "thread":
        shim = str(to / "openmp.so")
        source = str(CHECKOUT / "tools" / "openmp_on_pthreads.c")
        subprocess.run(["gcc", *FLAGS[kind].split(), "-O1", "-g1", "-shared", "-fPIC", source, "-o", shim], check=True)
        preloaded.append(shim)
    return " ".join(preloaded)


def environment(to, preloaded):
    options = {name: f"{value}:log_path={to / 'reports' / name[:4].lower()}" for name, value in OPTIONS.items()}
    options["TSAN_OPTIONS"] += f":suppressions={to / 'tools' / 'races_suppressed.txt'}"
    # One allocation each: a byte beyond an object, or of one that was freed, is not another's.
    python = {"PYTHONMALLOC": "malloc", "PYTHONDONTWRITEBYTECODE": "1"}
    return copies.environment(to, options | python | {"CPUBN_NUM_THREADS": "3", "LD_PRELOAD": preloaded})


def without_chance():
    """Before a command: its addresses do not vary, where they vary by more than GCC 13's ThreadSanitizer can take."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    return ["setarch", "--addr-no-randomize"] if bits.exists() and int(bits.read_text()) > 28 else []


def reports(to):
    """Each report once: the same line of source reports again in other processes and of other addresses."""
    found = {}
    for path in sorted((to / "reports").iterdir()):
        for report in re.split(r"(?m)^(?==+\s*$|.*: runtime error: )", path.read_text(errors="replace")):
            lines = [line for line in report.splitlines() if re.search(r"SUMMARY: |runtime error: ", line)]
            if lines:
                found.setdefault(re.sub(r"0x[0-9a-f]+|==\d+==", "", lines[-1]), report)
    return list(found.values())


def control(kind, to, variables):
    """End the program if what must be reported is not."""
    flags = (FLAGS[kind] + LINKED[kind]).split()
    (to / "control.c").write_text(CONTROL)
    subprocess.run(["gcc", *flags, "-shared", "-fPIC", "control.c", "-o", "control.so"], cwd=to, check=True)
    subprocess.run([*without_chance(), sys.executable, "-c", CONTROLS[kind]], cwd=to, env=variables, check=False)
    found = "".join(reports(to))
    for words in WORDS[kind]:
        if words not in found:
            sys.exit(f"no report says {words!r} of this, so that nothing is known of the rest:\n{CONTROLS[kind]}")


def clear(to):
    shutil.rmtree(to / "reports", ignore_errors=True)
    (to / "reports").mkdir()


def run(kind, to, preloaded, arguments):
    """Tests, then hostile arguments; what they ended with, and pytest's last line."""
    variables = environment(to, preloaded)
    clear(to)
    control(kind, to, variables)
    clear(to)
    # Its own handler of faults would take the place of the sanitizer's.
    command = [sys.executable, *copies.PYTEST, "-p", "no:faulthandler"]
    command += [*LEFT_OUT[kind], *(arguments.tests or copies.TESTS)]
    if arguments.isa is not None:  # which asks for all of them
        command.append("--ignore=tests/backends/test_dispatch.py")
    process = subprocess.Popen([*without_chance(), *command], cwd=to, env=variables, stdout=subprocess.PIPE, text=True)
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line.strip() or last
    failed = process.wait() != 0
    if kind == "address" and arguments.fuzz:
        fuzz = [sys.executable, "tests/fuzz_api.py", f"--seconds={arguments.fuzz}"]
        done = subprocess.run(fuzz, cwd=to, env=variables, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, end="")
        failed = failed or done.returncode != 0
        last += f"; hostile arguments: {done.stdout.strip() or 'failed'}"
    return failed, last


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=FLAGS)
    parser.add_argument("--isa", nargs="*", help="instruction sets that are built beside the baseline, in place of all")
    parser.add_argument("--fuzz", type=int, default=90, help="seconds of tests/fuzz_api.py, under AddressSanitizer")
    parser.add_argument("tests", nargs="*", help="in place of all that reach the kernels")
    arguments = parser.parse_args()
    to = CHECKOUT / "build" / "sanitized" / arguments.kind
    preloaded = build(arguments.kind, to, arguments.isa)
    failed, last = run(arguments.kind, to, preloaded, arguments)
    found = reports(to)
    for report in found:
        print(report)
    compiler = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    sets = ", ".join(["baseline", *arguments.isa] if arguments.isa is not None else ["all"])
    last = last.strip("= ")
    print(f"| {arguments.kind} | {time.strftime('%Y-%m-%d')} | GCC {compiler} | {sets} | {last} | {len(found)} |")
    sys.exit(failed or bool(found))


if __name__ == "__main__":
    main()
