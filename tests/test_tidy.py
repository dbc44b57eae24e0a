"""The house stays tidy: lengths, pairing of files and tests, banned calls."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "fabric").rglob("*.py"))
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
PURE = ("model", "policy", "attest", "seal", "admit")
TESTED_ELSEWHERE = {
    # the demo is tested by running it, the faces by the commands' own tests
    "demo",
    "cli",
}
BANNED = {
    "asyncio.create_task": "use a TaskGroup",
    "asyncio.ensure_future": "use a TaskGroup",
    "_log.exception": "an exception's text may quote a row: log fabric.trace.trace of it",
    "os.system": "use subprocess with a list",
    "pickle.loads": "foreign bytes must not run code",
    "yaml.load": "use yaml.safe_load",
    "datetime.utcnow": "times are aware",
    "time.sleep": "wait for something, with a deadline",
}
SLEEPERS = {"fabric/demo/process.py", "fabric/demo/fleet.py", "fabric/demo/proofs.py"}


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in MODULES:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_module_is_longer_than_the_limit() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in MODULES
        if (lines := path.read_text().count("\n")) > MODULE_LINES_MAX
    }
    assert not long


def test_no_function_is_longer_than_the_limit() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert not long


def test_no_banned_call_is_made() -> None:
    found = [
        f"{name}:{node.lineno} {dotted}: {BANNED[dotted]}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (dotted := _dotted(node.func)) in BANNED
        and not (dotted == "time.sleep" and name in SLEEPERS)
    ]
    assert not found


def test_every_package_and_module_has_a_docstring() -> None:
    assert not [name for name, tree in _trees() if not ast.get_docstring(tree)]


def test_security_checks_of_the_pure_half_do_not_rest_on_asserts_about_foreign_bytes() -> None:
    """Asserts vanish under -O: the parsers of foreign bytes must not have any."""
    parsers = ("evidence.py", "envelope.py", "canonical.py", "cose.py", "messages.py", "wire.py")
    found = [
        f"{name}:{node.lineno}"
        for name, tree in _trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert) and name.rpartition("/")[2] in parsers
    ]
    assert not found


@pytest.mark.parametrize(
    "module",
    [
        path.relative_to(ROOT / "fabric")
        for path in MODULES
        if path.name != "__init__.py"
        and path.relative_to(ROOT / "fabric").parts[0] not in TESTED_ELSEWHERE
        and path.name != "ports.py"
    ],
    ids=str,
)
def test_every_module_has_its_test_file(module: Path) -> None:
    expected = ROOT / "tests" / "unit" / module.with_name(f"test_{module.name}")
    assert expected.exists(), f"{module} has no {expected.relative_to(ROOT)}"


def test_no_file_names_a_place_of_this_machine_or_leaves_work_undone() -> None:
    pattern = re.compile(
        r"/root/|\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError|type: ignore(?!\[)"
    )
    folders = ("fabric", "deploy", "docs", "schemas", "loadtest")
    listed = subprocess.run(
        ["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if name and not name.endswith(".png")]
    assert len(names) > 200
    assert not [name for name in names if pattern.search((ROOT / name).read_text())]
