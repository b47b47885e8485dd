"""tools/elsewhere.py: digests that differ, or that one side alone has, are found and named."""

import pytest
from programs import program


@pytest.fixture(scope="module")
def elsewhere():
    return program("elsewhere")


HERE = {("1 thread", "a"): 1, ("1 thread", "b"): 2, ("2 threads", "a"): 1}


def test_the_same_digests(elsewhere, capsys):
    assert elsewhere.compared(HERE, dict(HERE))
    assert capsys.readouterr().out == "3 of 3 digests are those of this checkout\n"


@pytest.mark.parametrize("there", [HERE | {("1 thread", "b"): 3}, {k: v for k, v in HERE.items() if k[1] != "b"}])
def test_a_digest_that_differs_or_is_missing(there, elsewhere, capsys):
    expected = "differs: 1 thread b\n2 of 3 digests are those of this checkout\n"
    assert not elsewhere.compared(HERE, there)
    assert capsys.readouterr().out == expected
    assert not elsewhere.compared(there, HERE)
    assert capsys.readouterr().out == expected
