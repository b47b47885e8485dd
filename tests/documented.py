"""What a public name's docstring must hold, and its example."""

import doctest
import inspect
import re

# What cannot go wrong.
NEVER_RAISE = {"FoldReport", "available_backends", "get_include", "get_num_threads", "no_grad", "world"}


def public(module):
    """Functions and classes by their names."""
    named = {name: getattr(module, name) for name in module.__all__}
    return {f"{module.__name__}.{name}": value for name, value in named.items() if callable(value)}


def gaps(value):
    """Which of numpydoc's sections are missing, and which parameters and members are not described."""
    text = inspect.getdoc(value)
    is_class = inspect.isclass(value)
    wanted = set()
    parameters = inspect.signature(value).parameters
    if parameters:  # of a record its fields
        wanted.add("Attributes" if value.__name__ == "FoldReport" else "Parameters")
    if value.__name__ not in NEVER_RAISE:
        wanted.add("Raises")
    if not is_class and inspect.signature(value).return_annotation not in (None, "None"):
        wanted.add("Returns")
    found = [name for name in sorted({*wanted, "Examples"}) if not re.search(f"^{name}\n-+$", text, re.MULTILINE)]
    heads = "\n".join(line for line in text.splitlines() if re.match(r"[\w*, ]+ : ", line))
    described = set(re.findall(r"\w+", " ".join(line.partition(" : ")[0] for line in heads.splitlines())))
    starred = {p.name for p in parameters.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    found += sorted(set(parameters) - described - starred)
    if is_class:
        members = {name: member for name, member in vars(value).items() if not name.startswith("_")}
        members = {name: m for name, m in members.items() if callable(m) or isinstance(m, property | classmethod)}
        found += [name for name in members if not inspect.getdoc(getattr(value, name))]
    return found


def run_example(value, names):
    """What the example gives otherwise than it says."""
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(value), names, value.__name__, None, None)
    assert test.examples
    told = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=told.append)
    return "".join(told)
