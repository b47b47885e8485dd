"""How the manual is built: `nox -s docs`, or `make -C docs html` where the dependency group `docs` is installed."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout's own, whichever is installed

import cpubn

project = "cpubn"
author = "The cpubn developers"
copyright = "The cpubn developers, BSD-3-Clause"  # Sphinx's own name for it
release = version = cpubn.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"cpubn {release}"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_theme_options = {
    "source_repository": "https://github.com/cpubn/cpubn/",
    "source_branch": "main",
    "source_directory": "docs/",
}

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

autodoc_typehints = "none"  # docstrings tell types; and so one signature is shown, not an overload for each result
autodoc_member_order = "bysource"
# Whose modules are described whether they are installed or not, and what of ours asks for compiled kernels.
autodoc_mock_imports = ["cloudpickle", "dask", "jax", "jaxlib", "mpi4py", "scipy", "sklearn", "torch"]
autodoc_mock_imports += [f"cpubn.torch.{name}" for name in ("calls", "gradients", "operators", "sync")]
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Without a network the manual is built without links to other manuals: CPUBN_DOCS_LINKS=1 asks for them.
intersphinx_mapping = {}
if os.environ.get("CPUBN_DOCS_LINKS", "0") != "0":
    intersphinx_mapping = {
        "numpy": ("https://numpy.org/doc/stable/", None),
        "python": ("https://docs.python.org/3/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }
