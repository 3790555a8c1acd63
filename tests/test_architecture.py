"""ARCHITECTURE.md's rules, read from the sources; and the examples in docstrings, run."""

import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import seqcore
from support import ROOT

CPP = Path(ROOT, "cpp")
PYTHON = Path(ROOT, "python", "seqcore")
TESTS = Path(ROOT, "tests")
SOURCES = [
    p
    for p in (CPP / "src", CPP / "bindings")
    for p in sorted(p.rglob("*"))
    if p.suffix in {".h", ".cc", ".inl", ".hpp", ".cpp"}
]
# What each folder may include, itself apart (ARCHITECTURE.md, "The ladder").
LADDER = {
    "simd": set(),
    "kernels": {"simd"},
    "base": set(),
    "layers": {"base", "kernels"},
    "model": {"base", "kernels", "layers"},
    "stream": {"base", "kernels", "layers", "model"},
    "capi": {"base", "model", "seqcore", "stream"},
    "bindings": {"base", "kernels", "layers", "model", "simd", "stream"},
}


def folder(path):
    parts = path.relative_to(CPP).parts
    return parts[0] if parts[0] == "bindings" else parts[1]


def code(path):
    """The text without comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.S)


def test_the_folders_are_those_of_the_table():
    assert {folder(p) for p in SOURCES} == set(LADDER)
    table = Path(ROOT, "ARCHITECTURE.md").read_text()
    assert all(f"`cpp/src/{name}/`" in table for name in set(LADDER) - {"bindings"}) and "`cpp/bindings/`" in table


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CPP)))
def test_cpp_rules(path):
    here, text = folder(path), code(path)
    included = re.findall(r'#\s*include\s*"([^"]+)"', text)
    for name in included:
        top = name.split("/")[0]
        if "/" in name:
            assert top == here or top in LADDER[here], f"{here} includes {name}"
    system = re.findall(r"#\s*include\s*<([^>]+)>", text)
    if here != "simd":
        intrinsics = [
            h for h in system if re.fullmatch(r"(imm|emm|xmm|pmm|nmm|amm)intrin\.h|arm_neon\.h|arm_sve\.h", h)
        ]
        assert not intrinsics
        assert not re.search(r"\b_mm(256|512)?_\w+|\bv(ld|st)1q_\w+", text)
    if path.name != "parallel.cc":
        assert "omp.h" not in system and not re.search(r"#\s*pragma\s+omp|\bomp_\w+\(", text)
    if here != "bindings":
        assert not any(h.startswith("pybind11") or h == "Python.h" for h in system) and not re.search(r"\bpy::", text)
    if here == "kernels" and path.suffix == ".inl":
        assert set(system) <= {"cstddef", "cstdint", "cstring"}, "kernels use no STL"
        assert not re.search(r"\b(new|delete|malloc|free|throw|std::(exp|log|tanh|pow|sqrt|fma))\b\s*\(?", text)
    assert "TODO" not in path.read_text() and "FIXME" not in path.read_text()


def test_flags():
    build = "".join(
        p.read_text() for p in [Path(ROOT, "CMakeLists.txt"), *CPP.rglob("CMakeLists.txt"), *Path(ROOT).glob("*.cmake")]
    )
    assert "-ffp-contract=off" in build
    uncommented = re.sub(r"#[^\n]*", "", build)
    assert not re.search(r"-ffast-math|-Ofast|-funsafe-math|-march=native", uncommented)


def modules():
    return {
        p: ".".join(p.relative_to(PYTHON.parent).with_suffix("").parts).removesuffix(".__init__")
        for p in PYTHON.rglob("*.py")
    }


def imports(path, name):
    """Absolute names of what a module imports; those under TYPE_CHECKING do not count."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(nodes, out):
        for node in nodes:
            if isinstance(node, ast.Import):
                out += [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                whole = ".".join([*base, *([node.module] if node.module else [])])
                out += [whole, *(f"{whole}.{a.name}" for a in node.names)]
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                visit(node.orelse, out)
            else:
                visit(ast.iter_child_nodes(node), out)
        return out

    return visit(ast.parse(path.read_text()).body, [])


def test_only_the_engine_imports_the_core():
    found = {p.name for p, name in modules().items() if "seqcore._core" in imports(p, name)}
    assert found == {"_engine.py"}


def check_no_circle(graph):
    """graph: of each node those that it needs."""
    done, path = set(), []

    def visit(n):
        assert n not in path, " -> ".join([*path[path.index(n) :], n])
        if n not in done:
            path.append(n)
            for m in sorted(graph[n]):
                visit(m)
            done.add(path.pop())

    for n in sorted(graph):
        visit(n)
    assert len(done) == len(graph) > 5


def test_python_imports_make_no_circle():
    """Nor those inside of functions. A package may import its members, and those their elder siblings."""
    names = {name: p for p, name in modules().items()}
    graph = {n: {i for i in imports(p, n) if i in names and i != n} for n, p in names.items()}
    # `from . import x` names the package too: that edge only says "x".
    check_no_circle(
        {n: {i for i in found if not (n.startswith(i + ".") or i == "seqcore")} for n, found in graph.items()}
    )


def test_cpp_includes_make_no_circle():
    """A header and its source are one: what a source needs may not need the header."""

    def part(name):
        return re.sub(r"\.(h|cc|inl)$", "", name)

    graph = {}
    for path in SOURCES:
        if folder(path) != "bindings":
            included = re.findall(r'#\s*include\s*"([^"]+)"', code(path))
            graph.setdefault(part(str(path.relative_to(CPP / "src"))), set()).update(map(part, included))
    check_no_circle({n: {i for i in found if i in graph and i != n} for n, found in graph.items()})


def test_nothing_but_numpy_and_a_small_library_is_imported():
    import sys

    found = {i.split(".")[0] for p, n in modules().items() for i in imports(p, n)}
    assert found - set(sys.stdlib_module_names) - {"seqcore"} <= {"numpy", "tabulate"}


def test_the_reference_imports_only_numpy():
    for path in (TESTS / "reference").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert [a.name for a in node.names] == ["numpy"], path
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1, path


@pytest.mark.parametrize("path", [*SOURCES, *PYTHON.rglob("*.py"), *TESTS.rglob("*.py")], ids=lambda p: p.name)
def test_files_say_what_they_are(path):
    """In their first comment or docstring; a .cc may leave it to its header."""
    text = path.read_text()
    if path.suffix == ".py":
        assert not text.strip() or ast.get_docstring(ast.parse(text))
    else:
        assert text.startswith("//") or re.match(rf'#include "[\w/]*{path.stem}\.h"\n', text)


def public_modules():
    yield "seqcore"
    for info in pkgutil.walk_packages(seqcore.__path__, "seqcore."):
        if info.name != "seqcore._core":
            yield info.name


@pytest.mark.parametrize("name", list(public_modules()))
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = {n: sum(bool(t.examples) for t in finder.find(importlib.import_module(n))) for n in public_modules()}
    assert sum(found.values()) >= 15, found


@pytest.mark.parametrize(
    "home", ["layers", "optimizers", "losses", "metrics", "callbacks", "initializers", "regularizers", "constraints"]
)
def test_public_classes_are_documented(home):
    module = importlib.import_module(f"seqcore.{home}")
    for name in module.__all__:
        item = getattr(module, name)
        assert item.__doc__ and item.__doc__.strip(), f"{home}.{name}"
