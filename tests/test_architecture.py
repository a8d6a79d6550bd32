"""The plan of the house: imports run downwards, and nothing heavy loads before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pathspec
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Layer → the project's packages that it may import. `function_app` may import all of the first
# three; `demo` and `tests` are outside the app and may import anything.
MAY_IMPORT = {
    "slicewatch": {"slicewatch"},
    "orchestrators": {"orchestrators", "slicewatch"},
    "activities": {"activities", "slicewatch"},
    "triggers": {"triggers", "slicewatch"},
    "local_host": {"local_host"},
    "training": {"training", "slicewatch"},
    "edge": {"edge", "slicewatch"},
    "benchmarks": {"benchmarks", "slicewatch", "demo", "training", "local_host"},
    "function_app.py": {"activities", "orchestrators", "triggers", "slicewatch"},
}
OURS = {name.removesuffix(".py") for name in MAY_IMPORT} | {"demo", "tests"}
HEAVY = (
    "numpy",
    "onnxruntime",
    "pydicom",
    "PIL",
    "highdicom",
    "requests",
    "azure.storage.blob",
    "azure.data.tables",
    "azure.identity",
)


def _modules(layer: str) -> list[Path]:
    path = ROOT / layer
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _imports(file: Path) -> set[str]:
    """First names of the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("layer", [layer for layer in MAY_IMPORT if (ROOT / layer).exists()])
def test_imports_run_downwards_only(layer: str) -> None:
    wrong = {
        str(file.relative_to(ROOT)): sorted(upward)
        for file in _modules(layer)
        if (upward := (_imports(file) & OURS) - MAY_IMPORT[layer])
    }
    assert not wrong


def test_the_domain_knows_nothing_of_azure_functions() -> None:
    for file in _modules("slicewatch"):
        text = file.read_text("utf-8")
        assert "azure.functions" not in text, file
        assert "durable_functions" not in text, file


def test_orchestrators_import_records_and_no_storage_clock_or_environment() -> None:
    records = {
        f"slicewatch.{module}"
        for module in (
            "record",
            "records",
            "messages",
            "dataset_messages",
            "evidence_messages",
            "report_messages",
        )
    }
    forbidden = {"os", "time", "random", "uuid", "pathlib", "socket", "requests", "httpx"}
    for file in _modules("orchestrators"):
        assert not _imports(file) & forbidden, file
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slicewatch"):
                assert node.module in records, f"{file}: {node.module}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("now", "utcnow", "today"), f"{file}:{node.lineno}"


def _run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "", "AzureWebJobsStorage": "UseDevelopmentStorage=true"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_importing_the_app_loads_nothing_heavy() -> None:
    code = (
        "import sys, function_app; function_app.app.get_functions();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert _run(code).strip() == "[]"


def _function_names() -> set[str]:
    code = (
        "import function_app\n"
        "for one in function_app.app.get_functions(): print(one.get_function_name())"
    )
    return {name for name in _run(code).split() if not name.startswith("BuiltIn__")}


def test_no_door_has_a_key_beside_its_roles() -> None:
    code = (
        "import json, function_app\n"
        "for one in function_app.app.get_functions():\n"
        "    for binding in json.loads(one.get_function_json())['bindings']:\n"
        "        print(str(binding.get('authLevel', 'ANONYMOUS')).upper())"
    )
    assert set(_run(code).split()) == {"ANONYMOUS"}


def test_every_function_is_in_the_file_of_its_name() -> None:
    registering = {
        file.stem
        for folder in ("activities", "triggers", "orchestrators")
        for file in _modules(folder)
        if "bp = df.Blueprint()" in file.read_text("utf-8")
    }
    assert _function_names() == registering


def test_no_file_is_called_utils_or_helpers() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert not [
        name for name in tracked if Path(name).stem in ("utils", "helpers", "util", "helper")
    ]


def test_the_deployed_package_holds_the_app_and_nothing_else() -> None:
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".funcignore").read_text().splitlines())
    packed = {
        path.relative_to(ROOT).as_posix()
        for folder in ROOT.iterdir()
        for path in ([folder] if folder.is_file() else folder.rglob("*"))
        if not folder.name.startswith((".venv", "node_modules", ".git", "runs"))
        and path.is_file()
        and not ignored.match_file(path.relative_to(ROOT))
    }
    tops = {name.split("/")[0] for name in packed}
    assert tops <= {
        "function_app.py", "host.json", "requirements.txt",
        "activities", "models", "orchestrators", "slicewatch", "triggers", "web",
    }  # fmt: skip
    assert not [name for name in packed if name.startswith("web/") and "/dist/" not in name]
    assert "slicewatch/policies/default.toml" in packed
    assert not [name for name in packed if name.endswith((".pt", ".pyc", ".md"))]


def test_what_is_deployed_has_no_torch() -> None:
    text = (ROOT / "requirements.txt").read_text("utf-8").lower()
    for name in ("torch", "ultralytics", "opencv"):
        assert not [line for line in text.splitlines() if line.startswith(name)]
