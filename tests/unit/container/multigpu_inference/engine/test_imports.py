from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import multigpu_inference

ROOT = Path(multigpu_inference.__file__).parent
PACKAGE = "multigpu_inference"


def module_name(path: Path) -> str:
    parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
FRONT_END = [name for name in SOURCES if name.startswith(f"{PACKAGE}.frontend")]
ENGINE = [name for name in SOURCES if name.startswith(f"{PACKAGE}.engine")]
_COMMANDS = tuple(f"{PACKAGE}.{part}" for part in ("planner", "check", "export.co", "__main__"))
COMMANDS = [name for name in SOURCES if name.startswith(_COMMANDS)]  # export's other modules are what scripts use
# Everything that stands under both, those aside that stand over them.
COMMON = [name for name in SOURCES if name not in (*FRONT_END, *ENGINE, *COMMANDS, PACKAGE, f"{PACKAGE}.supervisor")]


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports that are carried out, so none that are there for a type checker only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from statements(child)


def imports(name: str) -> set[str]:
    """The modules that a module of the package imports, ours by their full names."""
    found = set()
    for statement in statements(ast.parse(SOURCES[name].read_text())):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        else:
            assert statement.level == 0, f"{name} has a relative import"
            assert statement.module is not None
            within = {f"{statement.module}.{alias.name}" for alias in statement.names} & set(SOURCES)
            found |= within or {statement.module}
    return found


def loaded_by(*modules: str) -> set[str]:
    """What a fresh process has loaded once it has imported these."""
    script = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def within(modules: set[str], *packages: str) -> set[str]:
    return {name for name in modules if name.startswith(tuple(f"{package}." for package in packages)) or name in packages}


# Which process loads what


def test_engine_and_supervisor_load_no_torch() -> None:
    loaded = loaded_by(f"{PACKAGE}.engine.server", f"{PACKAGE}.supervisor")
    assert not within(loaded, "torch", "numpy")
    assert not within(loaded, f"{PACKAGE}.user_module", f"{PACKAGE}.frontend", f"{PACKAGE}.planner")


def test_the_http_front_end_loads_no_torch_and_nothing_of_the_engine() -> None:
    loaded = loaded_by(f"{PACKAGE}.frontend.http.server")
    foreign = (f"{PACKAGE}.engine", f"{PACKAGE}.planner", f"{PACKAGE}.user_module", "mms", "sagemaker_inference")
    assert not within(loaded, "torch", "numpy", *foreign)


def test_a_front_end_worker_loads_no_torch_and_nothing_of_the_engine() -> None:
    loaded = loaded_by(f"{PACKAGE}.frontend.handler_service")
    assert not within(loaded, "torch", "numpy", f"{PACKAGE}.engine", f"{PACKAGE}.user_module")


@pytest.mark.parametrize("worker", ["replica_worker", "pool_worker"])
def test_a_worker_loads_nothing_of_the_front_end(worker: str) -> None:
    loaded = loaded_by(f"{PACKAGE}.engine.{worker}")
    assert not within(loaded, f"{PACKAGE}.frontend", f"{PACKAGE}.supervisor", "mms", "sagemaker_inference")


@pytest.mark.parametrize("worker", ["replica_worker", "pool_worker", "script_probe", "device_probe"])
def test_a_worker_loads_no_torch_of_its_own_accord(worker: str) -> None:
    assert not within(loaded_by(f"{PACKAGE}.engine.{worker}"), "torch")


# What the package offers


def test_the_package_loads_nothing_by_itself() -> None:
    assert within(loaded_by(PACKAGE), PACKAGE, "torch") == {PACKAGE}


@pytest.mark.parametrize("name", multigpu_inference.__all__)
def test_a_public_name_is_there_and_is_called_so(name: str) -> None:
    assert getattr(multigpu_inference, name).__name__ == name


def test_public_names_are_these() -> None:
    of_scripts = {
        *("Branch", "Branches", "Bulk", "Exportable", "Fetched", "LocalPool", "Pipeline", "ReplicaSet", "Size", "Stage"),
        *("accelerate", "fetch_url", "load_network", "plan_placement"),
    }
    assert set(multigpu_inference.__all__) == of_scripts


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'multigpu_inference' has no attribute 'Manager'"):
        multigpu_inference.Manager  # noqa: B018


# Imports go one way


def test_there_is_something_to_look_at() -> None:
    assert len(FRONT_END) > 3
    assert len(ENGINE) > 20
    assert f"{PACKAGE}.errors" in COMMON


@pytest.mark.parametrize("name", FRONT_END)
def test_the_front_end_imports_what_crosses_the_processes_only(name: str) -> None:
    shared = ("arena", "errors", "messages", "ipc", "config", "log", "proc_stat", "process", "run_folder", "fair_places")
    allowed = {PACKAGE, *(f"{PACKAGE}.{module}" for module in shared)}
    assert within(imports(name), PACKAGE) <= allowed | set(FRONT_END)


@pytest.mark.parametrize("name", [*FRONT_END, *ENGINE, *COMMON])
def test_nothing_that_serves_knows_the_commands(name: str) -> None:
    assert not within(imports(name), *_COMMANDS)


@pytest.mark.parametrize("name", ENGINE)
def test_the_engine_knows_neither_front_end_nor_supervisor(name: str) -> None:
    assert not within(imports(name), f"{PACKAGE}.frontend", f"{PACKAGE}.supervisor", "mms", "sagemaker_inference")


def test_the_supervisor_knows_neither_engine_nor_front_end() -> None:
    assert not within(imports(f"{PACKAGE}.supervisor"), f"{PACKAGE}.engine", f"{PACKAGE}.frontend")


@pytest.mark.parametrize("name", COMMON)
def test_what_all_share_knows_none_of_them(name: str) -> None:
    folders = [f"{PACKAGE}.{module}" for module in ("engine", "frontend", "supervisor")]
    assert not within(imports(name), *folders)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_know_of_the_front_end_how_to_ask_the_engine_and_no_supervisor(name: str) -> None:
    assert within(imports(name), f"{PACKAGE}.frontend", f"{PACKAGE}.supervisor") <= {f"{PACKAGE}.frontend.client"}


@pytest.mark.parametrize("name", SOURCES)
def test_torch_is_never_imported_at_the_top_of_a_module(name: str) -> None:
    top = [node for node in ast.parse(SOURCES[name].read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in top if "torch" in ast.unparse(node)]


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_says_what_it_owns(name: str) -> None:
    assert ast.get_docstring(ast.parse(SOURCES[name].read_text()))
