"""tools/sanitize.py: what it replaces in its copy stands in the sources, and reports of sanitizers are found."""

import pytest
from programs import program


@pytest.fixture(scope="module")
def sanitize():
    return program("sanitize")


def test_every_replaced_constant_stands_where_it_is_replaced(sanitize):
    for name in {name for name, *_ in sanitize.SMALL + sanitize.OTHERS}:
        content = (sanitize.CHECKOUT / name).read_bytes()
        assert sanitize.changed(name, content, None) != content


def test_a_constant_that_moved_is_missed(sanitize):
    with pytest.raises(SystemExit, match=r"order.py must have .*CHUNK = 65536.* once"):
        sanitize.changed("cpubn/maths/order.py", b"CHUNK = 1 << 16\n", None)


def test_named_instruction_sets_alone_are_built(sanitize):
    path = "cpubn/machine/isa.py"
    names = {}
    exec(sanitize.changed(path, (sanitize.CHECKOUT / path).read_bytes(), ["avx2"]), names)
    assert [variant.name for variant in names["INSTRUCTION_SETS"]] == ["baseline", "avx2"]


LINE = "=" * 18
RACE = f"{LINE}\nWARNING: ThreadSanitizer: data race (pid=7)\nSUMMARY: ThreadSanitizer: data race a.c:%d in f\n{LINE}\n"
OVERFLOW = "==7==ERROR: AddressSanitizer: overflow on address 0x602\nSUMMARY: AddressSanitizer: overflow a.c:7 in f\n"
SIGNED = "a.c:3:5: runtime error: signed integer overflow: 1\n    #0 0x7f in f\n"
MISALIGNED = "a.c:9:5: runtime error: load of misaligned address %s\n    #0 0x7f in f\n"
REPORTS = {
    "asan.7": f"{LINE * 3}\n{OVERFLOW}",
    "tsan.7": RACE % 1 + RACE % 2,
    "ubsa.7": SIGNED + MISALIGNED % "0x7f",
    "ubsa.8": MISALIGNED % "0x8f",
}


def test_each_report_is_found_once(sanitize, tmp_path):
    (tmp_path / "reports").mkdir()
    assert sanitize.reports(tmp_path) == []
    for name, text in REPORTS.items():
        (tmp_path / "reports" / name).write_text(text)
    found = sanitize.reports(tmp_path)
    assert len(found) == 5
    assert OVERFLOW in found[0]
    assert [report for report in found if "    #0 0x7f in f" in report] == [SIGNED, MISALIGNED % "0x7f"]
