"""The container image, run by a real Docker engine under the conditions of clusters and clinics.

They need docker-py, an engine that answers (DOCKER_HOST) and the image (`make docker`, or the one
that BIDS_QSM_IMAGE names), and are skipped with that sentence where one is absent.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bids_qsm
from bids_qsm.images import load_image
from tests.container.test_lock import pinned
from tests.tiny import tiny_dataset
from tests.validator import errors_among, issues_of

docker = pytest.importorskip("docker", reason="needs docker-py: pip install 'bids-qsm[build]'")

IMAGE = os.environ.get("BIDS_QSM_IMAGE", "bids-qsm")
LARGEST_IMAGE_BYTES = 1_500_000_000
USER = 1234
HARD = {
    "read_only": True,
    "user": f"{USER}:{USER}",
    "network_mode": "none",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "rw,mode=1777"},
    "mem_limit": "2g",
    "memswap_limit": "2g",
}
"""Nothing to write but /tmp and the output, nobody known, no network, no rights."""
LONGEST_RUN_S = 600
MAPS = ("Chimap", "R2starmap", "S0map", "desc-total_fieldmap", "desc-local_fieldmap")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """A client of the engine, which has the image."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.skip(
            f"no Docker engine answers ({error}): start one (dockerd) and name its socket in "
            "DOCKER_HOST"
        )
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        pytest.skip(f"the engine has no image {IMAGE}: make docker, or name one in BIDS_QSM_IMAGE")
    yield client
    client.close()


def started(engine, words, dataset=None, out=None, volumes=None, **options):
    """Start the program under hard conditions, unless the options say otherwise."""
    bound = dict(volumes or {})
    if dataset is not None:
        bound[str(dataset)] = {"bind": "/data", "mode": "ro"}
    if out is not None:
        bound[str(out)] = {"bind": "/out", "mode": "rw"}
    return engine.containers.run(IMAGE, words, detach=True, volumes=bound, **(HARD | options))


def run(engine, words, *folders, **options) -> tuple[int, str]:
    """Run the program and return its exit status and all that it said."""
    container = started(engine, words, *folders, **options)
    try:
        status = container.wait(timeout=LONGEST_RUN_S)["StatusCode"]
        return status, container.logs().decode()
    finally:
        container.remove(force=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset of two series that anybody may read."""
    folder = tiny_dataset(tmp_path_factory.mktemp("data") / "bids", ("01", "02"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    """An output folder of the user of the container alone."""
    folder = tmp_path / "out"
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture(scope="module", autouse=True)
def may_give_away() -> None:
    if os.geteuid():
        pytest.skip("needs root, to give folders to the user of the container")


@pytest.fixture(scope="module")
def outcome(engine, dataset, tmp_path_factory) -> tuple[int, str, Path]:
    """One run under hard conditions: exit status, log, outputs."""
    folder = tmp_path_factory.mktemp("hard") / "out"
    folder.mkdir(mode=0o700)
    os.chown(folder, USER, USER)
    words = ["/data", "/out", "participant", "-v"]
    status, log = run(engine, words, dataset, folder, environment={"NUMBA_DEBUG_CACHE": "1"})
    return status, log, folder


def refused(log: str) -> str:
    """Return the one sentence that the program ended with."""
    lines = log.strip().splitlines()
    assert len(lines) == 1, log
    assert "Traceback" not in log
    return lines[0]


def visible(folder: Path) -> list[Path]:
    """Return the outputs that a user sees, which a stopped run must not leave half written."""
    found = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return [folder / p for p in found if not any(part.startswith(".") for part in p.parts)]


def test_image_is_small_and_for_nobody_in_particular(engine) -> None:
    image = engine.images.get(IMAGE).attrs
    assert image["Size"] < LARGEST_IMAGE_BYTES
    assert image["Config"]["User"] == "1000:1000"
    assert image["Config"]["Entrypoint"] == ["bids-qsm"]
    assert image["Config"]["StopSignal"] == "SIGINT"


def test_bill_of_materials_is_what_was_locked(engine) -> None:
    words = ["/opt/bids-qsm/sbom.json"]
    status, text = run(engine, words, entrypoint="cat")
    assert status == 0
    parts = json.loads(text)["components"]
    versions = {part["name"].lower().replace("_", "-"): part["version"] for part in parts}
    ours = {"bids-qsm": bids_qsm.__version__}
    assert (
        versions == {k.replace(".", "-"): v for k, v in pinned("requirements.lock").items()} | ours
    )
    assert all(part.get("licenses") for part in parts if part["name"] == "numpy")


def test_help_and_version(engine) -> None:
    assert run(engine, ["--version"]) == (0, f"bids-qsm {bids_qsm.__version__}\n")
    status, text = run(engine, ["--help"])
    assert status == 0
    assert "exit status:" in text


def test_tools_of_the_extra_are_there(engine) -> None:
    status, text = run(engine, ["worker", "--version"], entrypoint="dask")
    assert (status, "version" in text) == (0, True)


def test_runs_as_nobody_with_nothing_to_write_but_the_output(outcome) -> None:
    status, log, folder = outcome
    assert status == 0, log
    files = visible(folder)
    assert {"sub-01.html", "sub-02.html"} <= {path.name for path in files}
    assert {path.stat().st_uid for path in folder.rglob("*")} == {USER}
    assert not errors_among(issues_of(folder))


def test_nothing_is_compiled_anew(outcome) -> None:
    _, log, _ = outcome
    assert "[cache] data loaded" in log
    assert [line for line in log.splitlines() if "data saved" in line] == []


def test_results_are_those_without_a_container(outcome, dataset, tmp_path) -> None:
    """Processors and libraries differ, so that the last digits may."""
    command = Path(sys.executable).with_name("bids-qsm")
    words = [command, dataset, tmp_path / "local", "participant", "--participant-label", "01"]
    subprocess.run(words, check=True, capture_output=True)
    for name in MAPS:
        path = Path("sub-01/anat") / f"sub-01_{name}.nii.gz"
        here = load_image(tmp_path / "local" / path).data
        there = load_image(outcome[2] / path).data
        assert np.abs(there - here).max() <= 1e-4 * np.abs(here).max(), name


def test_stop_ends_soon_with_nothing_half_written_and_the_next_run_goes_on(
    engine, dataset, out
) -> None:
    words = ["/data", "/out", "participant", "-v", "--participant-label", "01"]
    container = started(engine, words, dataset, out)
    try:
        until = time.monotonic() + LONGEST_RUN_S
        while b" inversion\n" not in container.logs() and time.monotonic() < until:
            time.sleep(0.2)
        container.stop(timeout=60)  # then Docker kills, which is status 137
        status = container.wait()["StatusCode"]
        log = container.logs().decode()
    finally:
        container.remove(force=True)
    assert status == 130, log
    assert "Traceback" not in log
    for path in visible(out):
        if path.suffix == ".gz":
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    status, log = run(engine, words, dataset, out)
    assert status == 0, log
    assert (out / "sub-01.html").is_file()


def test_too_little_memory_is_said(engine, dataset, out) -> None:
    small = {"mem_limit": "200m", "memswap_limit": "200m"}
    words = ["/data", "/out", "participant", "--participant-label", "01"]
    status, log = run(engine, words, dataset, out, **small)
    assert status == 1, log
    assert "the memory may have run out" in log
    assert "Traceback" not in log
    assert not (out / "sub-01.html").exists()


def test_a_dataset_that_may_not_be_read(engine, dataset, out, tmp_path) -> None:
    private = shutil.copytree(dataset, tmp_path / "private")
    private.chmod(0o700)
    status, log = run(engine, ["/data", "/out", "participant"], private, out)
    assert status == 66, log
    assert "/data" in refused(log)


def test_an_output_that_may_not_be_written(engine, dataset, tmp_path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    status, log = run(engine, ["/data", "/out", "participant"], dataset, theirs)
    assert status == 73, log
    assert "/out" in refused(log)


def test_no_place_for_temporary_files(engine, dataset, out) -> None:
    status, log = run(engine, ["/data", "/out", "participant"], dataset, out, tmpfs={})
    assert status == 73, log
    assert "TMPDIR" in refused(log)


def test_packages_and_settings_of_the_host_do_not_leak_in(engine, dataset, out, tmp_path) -> None:
    """As Apptainer without --cleanenv and --no-home: the user's own environment and home folder."""
    for leak in ("path", "home/.local/lib/python3.11/site-packages"):
        for package in ("numpy", "nibabel", "bids_qsm"):
            folder = tmp_path / leak / package
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text("raise SystemExit('leaked in')")
    for folder in (tmp_path, *tmp_path.rglob("*")):
        folder.chmod(0o700 if folder == out else 0o755)
    environment = {
        "PYTHONPATH": "/host/path",
        "PYTHONNOUSERSITE": "",
        "PYTHONHOME": "/host/path",
        "PYTHONSTARTUP": "/host/path/numpy/__init__.py",
        "HOME": "/host/home",
    }
    volumes = {str(tmp_path): {"bind": "/host", "mode": "ro"}}
    words = ["/data", "/out", "participant", "--participant-label", "01"]
    status, log = run(engine, words, dataset, out, volumes=volumes, environment=environment)
    assert (status, "leaked in" in log) == (0, False), log
    assert (out / "sub-01.html").is_file()
