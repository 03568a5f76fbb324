"""The pages of the documentation say what is so: links, options, commands, settings files."""

from __future__ import annotations

import argparse
import pkgutil
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import bids_qsm.numerics
import bids_qsm.statistics
from bids_qsm import atlas_cli, cli, cluster_cli, compare_cli
from bids_qsm.choices import METHODS
from bids_qsm.models import analyses_from
from bids_qsm.numerics.registry import choose
from bids_qsm.phantom import cli as phantom_cli
from bids_qsm.settings import processing_from

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
PARSERS = {
    "bids-qsm": cli.parser(),
    "bids-qsm atlas": atlas_cli.parser(),
    "bids-qsm cluster-scripts": cluster_cli._parser(),
    "bids-qsm compare": compare_cli._parser(),
    "bids-qsm-phantom": phantom_cli._parser(),
}
OTHERS = {"--all", "--choose", "--combine", "--no-kernels", "--stage", "--threads", "--toml"}
"""Options of `methods.py` and `lesions.py` in `tests/benchmarks`."""
OF_CONTAINERS = {
    "--build-context",
    "--cleanenv",
    "--cpus",
    "--init",
    "--memory",
    "--no-home",
    "--require-hashes",
    "--sbom",
    "--tmpfs",
}
"""Options of Docker, Apptainer and pip."""


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield the name of a page and the text of each of its fenced blocks in a language."""
    for name, text in TEXTS.items():
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield name, block


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    words = set()
    for action in parser._actions:
        words |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            words |= set().union(*map(options_of, action.choices.values()))
    return words


def commands() -> Iterator[tuple[str, str]]:
    """Yield the page and the words of each of the program's commands that a page shows."""
    for name, block in blocks("(?:sh|bash|text)"):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(bids-qsm(?:-phantom)?) (.*)", line.partition(" #")[0])
            if found and not re.search(r"[\[{|]|\.\.\.", found[2]):
                yield name, found[0].strip()


def test_every_page_is_in_the_navigation() -> None:
    listed = {"index.md"}
    for name, text in TEXTS.items():
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            entries = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(Path(name).parent / f"{entry}.md").as_posix() for entry in entries}
    assert listed == set(TEXTS)


def test_links_lead_somewhere() -> None:
    lost = []
    for name, text in TEXTS.items():
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(text)):
            path, _, anchor = link.partition("#")
            target = (DOCS / name).parent / path if path else DOCS / name
            there = target.is_file()
            if not there or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
                lost.append((name, link))
    assert lost == []


def test_figures_are_shown() -> None:
    shown = {
        ((DOCS / name).parent / path).resolve()
        for name, text in TEXTS.items()
        for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    }
    assert shown == {path.resolve() for path in (DOCS / "figures").iterdir()}


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_commands_are_understood(page, command) -> None:
    words = shlex.split(command)
    program = " ".join(words[:2]) if " ".join(words[:2]) in PARSERS else words[0]
    PARSERS[program].parse_args(words[len(program.split()) :])


def test_options_exist() -> None:
    known = set().union(*map(options_of, PARSERS.values())) | OTHERS | OF_CONTAINERS
    unknown = {
        (name, option)
        for name, text in TEXTS.items()
        for code in re.findall(r"`([^`]+)`", prose(text))
        for option in re.findall(r"(?:^|[ \[])(--[a-z][a-z-]+)", code)
        if "make " not in code and option not in known
    }
    assert unknown == set()


@pytest.mark.parametrize(("page", "text"), sorted(set(blocks("toml"))))
def test_files_are_read(page, text) -> None:
    content = tomllib.loads(text)
    if "analysis" in content:
        assert len(analyses_from(content)) == len(content["analysis"])
        return
    processing = processing_from(content)
    for step, methods in METHODS.items():
        method = getattr(processing, step)
        choose(step, methods, method.name, dict(method.options))


def test_the_library_has_the_modules_that_pages_name_and_those_of_all_methods() -> None:
    packages = (bids_qsm.numerics, bids_qsm.statistics)
    modules = {
        module.name
        for package in packages
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
    api = "".join(text for name, text in TEXTS.items() if name.startswith("api/"))
    described = set(re.findall(r"^\.\. automodule:: (\S+)", api, re.MULTILINE))
    inner = re.findall(r"`((?:numerics|statistics)\.\w+)`", TEXTS["api/index.md"])
    assert described | {f"bids_qsm.{name}" for name in inner} <= modules
    used = {function.__module__ for methods in METHODS.values() for function in methods.values()}
    assert {name for name in used if name in modules and not is_package(name)} <= described


def is_package(name: str) -> bool:
    return hasattr(sys.modules[name], "__path__")


def test_the_example_of_the_library_runs(capsys) -> None:
    (_, example), *_ = [b for b in blocks("python") if b[0] == "api/index.md"]
    (_, result), *_ = [b for b in blocks("text") if b[0] == "api/index.md"]
    exec(compile(example, "docs/api/index.md", "exec"), {})
    assert capsys.readouterr().out == result
