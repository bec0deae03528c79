"""The house stands: floors, lazy imports, help texts, links, one version."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hubel
from hubel.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hubel"
MODULES = sorted(SOURCE.rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMANDS = dict(get_command(app).commands)  # type: ignore[attr-defined]

FLOORS = (
    (
        "errors",
        "image_result",
        "results",
        "boxes",
        "masks",
        "png",
        "bounded",
        "interrupts",
        "fileio",
        "console",
        "config",
        "config_file",
        "drawing",
        "system",
        "tables",
        "timing",
        "standard_streams",
        "terminal_text",
        "validation",
    ),
    ("layers",),
    ("metrics", "weights", "data"),
    ("reports", "tracking", "analysis"),
    ("models",),
    ("tasks",),
    ("inference",),
    ("exporters", "benchmark", "batch_predict"),
    ("training",),
    ("tuning",),
    ("cli", "__main__"),
)  # fmt: skip
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
HEAVY = ("torch", "torchvision", "numpy", "PIL", "rich", "matplotlib", "sklearn", "scipy", "optuna")


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imported(module: Path) -> Iterator[tuple[str, int]]:
    """Each part of hubel that a module imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_relative(module)}:{node.lineno}: relative imports hide the floor"
            package = node.module or ""
            names = [f"hubel.{a.name}" for a in node.names] if package == "hubel" else [package]
        for name in names:
            if name.startswith("hubel.") and name != "hubel.__version__":
                yield name.split(".")[1], node.lineno


@pytest.mark.parametrize("module", [m for m in MODULES if m != SOURCE / "__init__.py"], ids=_relative)
def test_a_floor_uses_only_the_floors_below(module: Path) -> None:
    part = module.relative_to(SOURCE).parts[0].removesuffix(".py")
    for imported, line in _imported(module):
        if imported in FLOOR_OF:  # else it is a name that `hubel` itself offers
            assert FLOOR_OF[imported] <= FLOOR_OF[part], f"{_relative(module)}:{line} imports hubel.{imported}"
        else:
            assert FLOOR_OF[part] == len(FLOORS) - 1, f"{_relative(module)}:{line} imports {imported} from the top"


def test_every_part_has_a_floor_and_a_docstring() -> None:
    parts = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in MODULES}
    assert parts - {"__init__"} <= set(FLOOR_OF)
    for module in MODULES:
        assert ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))), _relative(module)


def test_files_are_named_for_one_idea_and_short() -> None:
    for module in MODULES:
        assert module.stem not in {"utils", "util", "helpers", "common", "misc", "base2"}, _relative(module)
        assert len(module.read_text(encoding="utf-8").splitlines()) <= 450, _relative(module)


START = {
    "import hubel": "import hubel",
    "hubel --help": "from hubel.cli.main import main; main(['--help'])",
    "hubel train --help": "from hubel.cli.main import main; main(['train', '--help'])",
    "hubel tune --help": "from hubel.cli.main import main; main(['tune', '--help'])",
    "hubel predict --help": "from hubel.cli.main import main; main(['predict', '--help'])",
    "hubel data convert --help": "from hubel.cli.main import main; main(['data', 'convert', '--help'])",
}


@pytest.mark.parametrize("start", START)
def test_starts_without_the_heavy_libraries(start: str) -> None:
    program = f"""
import contextlib, io, sys
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    {START[start]}
print(*[name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], f"`{start}` imports {done.stdout}"


def test_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", hubel.__version__)
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout.strip()) == (0, hubel.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changes or f"## [{hubel.__version__}]" in changes


def test_the_installed_package_has_that_version() -> None:
    try:
        installed = metadata.version("hubel")
    except metadata.PackageNotFoundError:
        pytest.skip("hubel is on the path but not installed")
    assert installed == hubel.__version__


SUBCOMMANDS = [f"{name} {part}" for name, group in COMMANDS.items() for part in getattr(group, "commands", ())]


@pytest.mark.parametrize("name", sorted([*COMMANDS, *SUBCOMMANDS]))
def test_help_shows_an_example(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], prog_name="hubel", terminal_width=200)
    assert shown.exit_code == 0, shown.output
    examples = [line for line in shown.stdout.splitlines() if re.search(rf"\bhubel {name}\b", line)]
    assert [line for line in examples if not line.startswith("Usage")], f"hubel {name} --help has no example"


def _anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get: lower case, punctuation dropped, spaces to hyphens."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{_relative(page)} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in _anchors(path), f"{_relative(page)} links to {target}"


def _commands_in(page: Path) -> Iterator[list[str]]:
    """The words of every `hubel …` line in shell blocks and of every `hubel …` code span."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    shell = [block for language, block in blocks if language in ("", "sh", "bash", "console", "shell")]
    lines = [line for block in shell for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for line in [*lines, *re.findall(r"`([^`\n]+)`", prose)]:
        for command in re.split(r"[;&|]+", line.split(" #")[0]):
            words = command.removeprefix("$ ").split()
            if len(words) > 1 and words[0] == "hubel" and not words[1].startswith(("-", "COMMAND")):
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=_relative)
def test_pages_name_commands_and_options_that_exist(page: Path) -> None:
    for name, *arguments in _commands_in(page):
        assert name in COMMANDS, f"{_relative(page)}: hubel {name}"
        command = COMMANDS[name]
        while (parts := getattr(command, "commands", None)) and arguments and not arguments[0].startswith("-"):
            assert arguments[0] in parts, f"{_relative(page)}: hubel {name} {arguments[0]}"
            command = parts[arguments.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in arguments:
            option = word.split("=")[0].strip("[]")
            if option.startswith("--"):
                assert option in known | {"--help", "--debug"}, f"{_relative(page)}: hubel {name} {option}"


def test_every_benchmark_is_listed() -> None:
    listed = set(re.findall(r"^\| `(\w+\.py)`", (ROOT / "benchmarks" / "README.md").read_text("utf-8"), flags=re.M))
    assert listed == {path.name for path in (ROOT / "benchmarks").glob("*.py")}
