"""The frame around the program: documents, packaging, what is kept in the repository."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import bids_qsm
from bids_qsm import errors
from bids_qsm.cli import parser
from bids_qsm.numerics.registry import choose
from bids_qsm.settings import Method, Processing

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

LARGEST_FILE_BYTES = 1_000_000
LARGEST_EXAMPLES_BYTES = 5_000_000


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """All files of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("needs the git repository: this is a copy without one")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def test_one_version_everywhere() -> None:
    assert version("bids-qsm") == bids_qsm.__version__
    changes = (ROOT / "CHANGES.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changes, re.MULTILINE)[1] == bids_qsm.__version__


def test_readme_commands_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+)(?= ?[a-z]*:)", makefile, re.MULTILINE))
    documents = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"(?:^|`)make ([a-z]+)", documents, re.MULTILINE))
    assert {"demo", "test"} <= commands <= targets


def test_readme_has_every_option_and_exit_status() -> None:
    words = {word for action in parser()._actions for word in action.option_strings}
    usage = README.partition("\n## Usage\n")[2].partition("\n## Inputs\n")[0]
    documented = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", usage))
    assert {word for word in words if "_" not in word} == documented - {"-vv"}
    statuses = {
        kind.exit_status
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BidsQsmError)
    }
    assert {int(s) for s in re.findall(r"^\| (\d+) \|", usage, re.MULTILINE)} == statuses | {0}


def test_readme_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("name", ["models.md", "outputs.md", "settings.md"])
def test_generated_pages_are_up_to_date(name) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == generate.PAGES[name](), "run docs/generate.py"


@pytest.mark.parametrize("name", ["models.md", "settings.md"])
def test_every_option_is_explained(name) -> None:
    rows = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row.startswith("| `") and row.endswith("|  |")] == []


def test_every_default_method_exists() -> None:
    from bids_qsm.choices import METHODS

    chosen = {k: v for k, v in vars(Processing()).items() if isinstance(v, Method)}
    assert chosen.keys() == METHODS.keys()
    for step, method in chosen.items():
        choose(step, METHODS[step], method.name, method.options)


def test_readme_names_every_method() -> None:
    from bids_qsm.choices import METHODS

    table = README.partition("\n## Methods\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z0-9-]+)`", table))
    default = {v.name for v in vars(Processing()).values() if isinstance(v, Method)}
    with_r2map = {"r2prime"}  # taken where there is an R2 map, not by its name
    assert {name for methods in METHODS.values() for name in methods} <= (
        named | default | with_r2map
    )


def test_commands_start() -> None:
    for script in PROJECT["project"]["scripts"]:
        command = Path(sys.executable).with_name(script)
        done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
        assert script in done.stdout


def test_package_data_cover_every_file(tracked) -> None:
    package = ROOT / "bids_qsm"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["bids_qsm"]
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    data = {f for f in tracked if f.is_relative_to(package) and f.suffix != ".py"}
    assert data <= packed
    folders = {f.parent for f in tracked if f.is_relative_to(package) and f.suffix == ".py"}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_repository_stays_small(tracked) -> None:
    sizes = {file.relative_to(ROOT): file.stat().st_size for file in tracked}
    assert {f: n for f, n in sizes.items() if n > LARGEST_FILE_BYTES} == {}
    examples = [n for f, n in sizes.items() if f.parts[0] == "data_examples"]
    assert 0 < sum(examples) < LARGEST_EXAMPLES_BYTES


def test_no_place_or_host_of_a_maker_is_written_down(tracked) -> None:
    folders = [f"/{name}/" for name in ("home", "Users", "work")]
    words = (*folders, ".".join(("pypi", "org")), "pythonhosted", "npmjs")
    found = []
    for file in tracked:
        text = file.read_bytes().decode("utf-8", errors="ignore")
        if file != Path(__file__).resolve():
            found += [(str(file.relative_to(ROOT)), word) for word in words if word in text]
    assert found == []


def test_image_is_built_from_the_supported_python_and_runs_as_nobody() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    oldest = PROJECT["project"]["requires-python"].split(",")[0].removeprefix(">=")
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {f"python:{oldest}-slim"}
    assert int(re.search(r"^USER (\d+)", dockerfile, re.MULTILINE)[1]) > 0
    assert 'ENTRYPOINT ["bids-qsm"]' in dockerfile
