"""The code on pages of the documentation that import a framework."""

import pytest
from conftest import need_library
from pages import pages, run_page

need_library("torch", "frameworks")


@pytest.mark.parametrize("name", pages(frameworks=True))
def test_the_code_on_a_page_runs(name, tmp_path):
    run_page(name, tmp_path)
