"""The versions that the image is built from: whole, pinned, and what pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("requirements.lock", "build-tools.lock")
RENEW = "run 'make lock' (docs/container.md)"


def entries(name: str) -> list[str]:
    """Return each requirement of a lock file with its hashes, in one line."""
    text = (ROOT / "container" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def pinned(name: str) -> dict[str, str]:
    """Return the version of each package of a lock file."""
    found = [re.match(r"(\S+)==(\S+) ", line) for line in entries(name)]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


@pytest.mark.parametrize("name", LOCKS)
def test_each_package_is_pinned_once_with_hashes_and_no_address(name) -> None:
    lines = entries(name)
    assert len(pinned(name)) == len(lines) > 0
    for line in lines:
        assert re.fullmatch(r"\S+==\S+(\s+; .*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)
    assert "://" not in (ROOT / "container" / name).read_text(encoding="utf-8")


def test_the_lock_is_what_the_project_allows() -> None:
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dask"]]
    versions = pinned("requirements.lock")
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name), "")
        assert requirement.specifier.contains(version or "0"), f"{requirement}: {RENEW}"


def test_the_build_tools_are_what_is_asked_for() -> None:
    named = (ROOT / "container" / "build-tools.in").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in named if line and not line.startswith("#")]
    versions = pinned("build-tools.lock")
    for requirement in map(Requirement, [*wanted, *PROJECT["build-system"]["requires"]]):
        version = versions.get(canonicalize_name(requirement.name), "")
        assert requirement.specifier.contains(version or "0"), f"{requirement}: {RENEW}"


def test_the_image_installs_only_what_is_locked() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"-m pip \S+ \S+ (?:install|wheel) [^&\n]+", dockerfile)
    assert len(commands) == 4
    for command in commands:
        assert "--require-hashes" in command or "--no-index" in command
