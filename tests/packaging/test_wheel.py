"""The wheel holds the package and nothing else; with its dependencies alone it runs `hubel demo`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import hubel

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "src"
DIST_INFO = f"hubel-{hubel.__version__}.dist-info"
METADATA = {
    f"{DIST_INFO}/{name}"
    for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE")
}
DATA_SUFFIXES = {".csv", ".jinja", ".txt", ".typed"}


def _files(folder: Path) -> set[str]:
    """Files under a folder as ``/``-separated paths relative to its parent, without hidden and compiled ones."""
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, and the wheel that is built from it, as a release has them."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"hubel-{hubel.__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        package = {name for name in names if name.startswith("hubel/")}
        assert set(names) - package == METADATA
        assert package == _files(SOURCE / "hubel")
        assert "hubel/py.typed" in package
        assert {Path(name).suffix for name in package} - {".py"} == DATA_SUFFIXES
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(f"{DIST_INFO}/licenses/{name}") == (ROOT / name).read_bytes()


def test_the_source_archive_holds_what_is_needed_to_build_and_test(dist: Path) -> None:
    top = f"hubel-{hubel.__version__}"
    with tarfile.open(dist / f"{top}.tar.gz") as archive:
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    for folder in ("benchmarks", "docs", "tests"):
        assert {name for name in _files(ROOT / folder) if name.endswith((".md", ".py"))} <= names
    assert {f"src/{name}" for name in _files(SOURCE / "hubel")} <= names
    assert {"CHANGELOG.md", "LICENSE", "Makefile", "NOTICE", "README.md", "constraints.txt", "pyproject.toml"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "runs/", "site/"))]


def _requirements(name: str) -> Iterator[str]:
    """Distributions that a distribution requires here, without its extras."""
    for line in metadata.requires(name) or ():
        requirement, _, marker = line.partition(";")
        if "extra ==" not in marker:
            yield re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]


def _dependencies() -> list[metadata.Distribution]:
    """What hubel's dependencies are installed as, all the way down."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(_requirements("hubel"))
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        waiting += _requirements(name)
    return list(found.values())


def _install(wheel: Path, environment: Path) -> Path:
    """Make an environment with the wheel and links to its dependencies; returns its folder of commands."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True)
    dependencies = environment / "dependencies"
    dependencies.mkdir()
    for distribution in _dependencies():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            link = dependencies / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    (site_packages,) = environment.glob("**/site-packages")
    (site_packages / "dependencies.pth").write_text(str(dependencies), encoding="utf-8")
    return commands


def test_the_wheel_runs_the_demo_with_its_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    commands = _install(wheel, tmp_path / "environment")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}

    def run(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=clean).stdout

    program = "import hubel, importlib.util; print(hubel.__file__, importlib.util.find_spec('pytest'))"
    home, test_tools = run(str(commands / "python"), "-c", program).split()
    assert Path(home).is_relative_to(tmp_path / "environment")
    assert test_tools == "None", "the environment is not bare"
    shown = run(str(commands / "hubel"), "demo")
    assert "palace" in shown
    assert {path.suffix for path in (tmp_path / "demo").iterdir() if path.name != ".hubel"} == {".jpg"}
