"""Files that state the same fact agree: the version, the pins, the commands, the names that are public."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import hubel

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.M))


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (hubel.__version__, PROJECT["license"])


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_every_requirement_is_pinned(extra: str) -> None:
    requirements = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    names = {_normalized(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in requirements}
    assert names - {"hubel"} <= {_normalized(name) for name in PINS}


@pytest.mark.parametrize("tool", ["ruff", "codespell"])
def test_pre_commit_runs_the_pinned_tools(tool: str) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (revision,) = [repository["rev"] for repository in config["repos"] if f"/{tool}" in repository["repo"]]
    assert revision == f"v{PINS[tool]}"


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: hubel\.(\w+)$", page, flags=re.M))
    assert shown == {*hubel.__all__, "metrics", "tracking"} - {"__version__"}


def test_the_dockerfile_copies_what_the_build_context_lets_in():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    needed = {*PROJECT["license-files"], PROJECT["readme"], "src", "pyproject.toml", "constraints.txt"}
    assert needed <= copied, "the package does not build without them"


def test_the_installation_page_lists_every_extra():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w-]+)` \|", page, flags=re.M))
    assert listed == set(PROJECT["optional-dependencies"]) - {"docs", "test"}
