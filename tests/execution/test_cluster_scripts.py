"""The scripts for clusters, with stand-ins for what a cluster has."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from bids_qsm.cli import main
from bids_qsm.cluster_cli import copy_scripts
from tests.execution.scripts import filled_in

STAND_INS = {
    # notes its words, each on a line, and does what is asked for
    "apptainer": 'printf "%s\\n" "$@" > "$SAID/apptainer"; shift "${SKIP:?}"; exec "$@"',
    "bids-qsm": 'printf "%s\\n" "$@" > "$SAID/bids-qsm"; exit "${STATUS:-0}"',
    # a scheduler, which leaves its file and stays; workers are of srun
    "dask": 'stat -c %a "$(dirname "$3")" "$DASK_CONFIG" > "$SAID/modes"; '
    'echo $$ > "$SAID/dask"; echo "{}" > "$3"; exec sleep 60',
    "srun": 'printf "%s\\n" "$@" > "$SAID/srun"; exec sleep "${WORKERS_LIVE_S:-10}"',
    "sbatch": 'printf "%s\\n" "$@" > "$SAID/sbatch-$(ls "$SAID" | wc -l)"; echo 7',
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A study's folder, with a blank in its name."""
    folder = tmp_path / "my study"
    for name in ("dataset/sub-01", "dataset/sub-02", "dataset/sub-03", "said", "bin"):
        (folder / name).mkdir(parents=True)
    (folder / "bids-qsm.sif").touch()
    for name, commands in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{commands}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def run(
    script: Path, *words: object, **variables: object
) -> tuple[subprocess.CompletedProcess[str], dict[str, list[str]]]:
    """Run a script; return what came of it, and what the stand-ins were told."""
    folder = script.parent
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    env |= {"PATH": f"{folder / 'bin'}:{env['PATH']}", "SAID": str(folder / "said")}
    done = subprocess.run(
        ["bash", script, *map(str, words)],
        env=env | {name: str(value) for name, value in variables.items()},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    said = {path.name: path.read_text().splitlines() for path in (folder / "said").iterdir()}
    return done, said


def test_scripts_are_written_out_but_not_over_one_that_is_there(tmp_path, capsys) -> None:
    assert main(["cluster-scripts", str(tmp_path / "new")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in paths] == ["Snakefile", "slurm-array.sh", "slurm-dask.sh"]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert main(["cluster-scripts", str(tmp_path / "new")]) == 73
    assert "it is there, and may have been filled in" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["cluster-scripts", str(tmp_path / "file")]) == 73
    assert "it cannot be written" in capsys.readouterr().err


def test_scripts_are_clean(tmp_path) -> None:
    scripts = [path for path in copy_scripts(tmp_path) if path.suffix == ".sh"]
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck: apt-get install shellcheck")
    subprocess.run(["shellcheck", *scripts], check=True)


def test_array_is_submitted_for_all_subjects_then_the_group_level(folder) -> None:
    script = filled_in(folder, "slurm-array.sh", SUBJECTS_PER_JOB="2", JOBS_AT_ONCE="9")
    done, said = run(script)
    assert done.returncode == 0, done.stderr
    (listed,) = folder.glob("subjects-*.txt")
    assert listed.read_text() == "sub-01\nsub-02\nsub-03\n"
    words = [str(script), "participant", str(listed)]
    assert said["sbatch-0"] == ["--parsable", "--array=1-2%9", *words]
    order = ["--dependency=afterok:7", "--kill-on-invalid-dep=yes", "--mem=16G"]
    assert said["sbatch-1"] == ["--parsable", *order, str(script), "group"]
    assert "jobs 7_1 to 7_2; then the group level: job 7." in done.stdout


def test_job_of_the_array_runs_its_subjects_in_the_image(folder) -> None:
    script = filled_in(
        folder,
        "slurm-array.sh",
        SUBJECTS_PER_JOB="2",
        PARTICIPANT='(--config-file "my settings.toml")',
        BIND="(--bind /masks:/masks:ro)",
    )
    (folder / "list").write_text("sub-01\nsub-02\nsub-03\n")
    inside = [
        *("exec", "--cleanenv", "--no-home", "--bind", f"{folder}/dataset:{folder}/dataset:ro"),
        *("--bind", f"{folder}/derivatives", "--bind", "/masks:/masks:ro"),
        f"{folder}/bids-qsm.sif",
    ]
    job = {"SLURM_CPUS_PER_TASK": 3, "SLURM_MEM_PER_NODE": 6144, "SKIP": len(inside)}
    done, said = run(script, "participant", folder / "list", SLURM_ARRAY_TASK_ID=2, **job)
    assert done.returncode == 0, done.stderr
    assert said["apptainer"][: len(inside)] == inside
    limits = ["--nprocs", "3", "--mem-gb", "6"]
    assert said["bids-qsm"] == [
        *(f"{folder}/dataset", f"{folder}/derivatives", "participant", "--participant-label"),
        *("sub-03", "--config-file", "my settings.toml", *limits),
    ]
    done, said = run(script, "participant", folder / "list", SLURM_ARRAY_TASK_ID=1, **job)
    assert said["bids-qsm"][4:6] == ["sub-01", "sub-02"]
    done, said = run(script, "group", **job)
    assert said["bids-qsm"][2:] == ["group", *limits]


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (18, 0), (73, 73)])
def test_job_fails_if_a_subject_does_but_not_for_want_of_series(folder, status, expected) -> None:
    script = filled_in(folder, "slurm-array.sh", IMAGE="")
    (folder / "list").write_text("sub-01\n")
    job = {"SLURM_CPUS_PER_TASK": 1, "SLURM_MEM_PER_NODE": 2048, "SLURM_ARRAY_TASK_ID": 1}
    done, _ = run(script, "participant", folder / "list", STATUS=status, **job)
    assert done.returncode == expected


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.parametrize(
    ("end", "workers_live_s", "status"),
    [("exit 0", 3, 0), ("exit 73", 3, 73), ("exec sleep 60", 0, 143)],
)
def test_dask_job_ends_with_the_run_or_its_last_worker(folder, end, workers_live_s, status) -> None:
    script = filled_in(folder, "slurm-dask.sh", IMAGE="", INTERFACE="(--interface ib0)")
    (folder / "bin" / "bids-qsm").write_text(f"#!/bin/bash\nsleep 0.5; {end}\n")
    job = {"SLURM_NTASKS": 8, "SLURM_CPUS_PER_TASK": 4, "SLURM_MEM_PER_CPU": 2048}
    done, said = run(script, WORKERS_LIVE_S=workers_live_s, **job)
    assert done.returncode == status, done.stderr
    assert ("No worker is left" in done.stderr) == (workers_live_s == 0)
    scheduler, until = Path(f"/proc/{said['dask'][0]}"), time.monotonic() + 10
    while scheduler.exists() and time.monotonic() < until:  # it was told to end just now
        time.sleep(0.05)
    assert not scheduler.exists()
    assert not list(folder.glob("dask-*"))
    assert said["modes"][0] == "700"
    assert said["srun"][:2] == ["--ntasks=8", "--cpus-per-task=4"]
    assert {"memory_gib=7", "--interface", "ib0"} <= set(said["srun"])


def test_what_is_missing_is_said(folder) -> None:
    script = filled_in(folder, "slurm-array.sh")
    done, _ = run(script, "group", SLURM_CPUS_PER_TASK=1)
    assert done.returncode != 0
    assert "write a line #SBATCH --mem=" in done.stderr
    filled_in(folder, "slurm-array.sh", DATASET="elsewhere")
    done, said = run(script)
    assert done.returncode != 0
    assert "elsewhere" in done.stderr
    assert said == {}


def test_snakefile_makes_what_is_missing_or_old(folder) -> None:
    snakemake = shutil.which("snakemake")
    if snakemake is None:
        pytest.skip("needs Snakemake on PATH: pip install snakemake (in an environment of its own)")
    filled_in(folder, "Snakefile", PARTICIPANT='"--preset fast"', GROUP='"--rescan 1 2"')
    for subject in ("01", "03"):  # 02 has no series
        (folder / f"dataset/sub-{subject}/sub-{subject}_echo-1_MEGRE.nii.gz").touch()
    (folder / "bin" / "bids-qsm").write_text(
        "#!/bin/bash\n"
        'page=group; [ "$3" = group ] || page=$5\n'
        'echo "$@" > "$SAID/$page"; echo made > "$2/$page.html"\n'
    )
    script = folder / "snakemake.sh"
    script.write_text(f'exec {snakemake} --quiet all --cores 4 "$@"\n')
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), folder)
    done, said = run(script, "--dry-run", **places)
    assert (done.returncode, said) == (0, {}), done.stderr
    done, said = run(script, **places)
    assert done.returncode == 0, done.stderr
    end = "--nprocs 4 --mem-gb 7 --preset fast"
    words = "dataset derivatives participant --participant-label sub-01"
    assert said["sub-01"] == [f"{words} {end}"]
    assert said["group"] == ["dataset derivatives group --nprocs 4 --mem-gb 15 --rescan 1 2"]
    assert sorted(said) == ["group", "sub-01", "sub-03"]
    for path in (folder / "said").iterdir():
        path.unlink()
    (folder / "dataset/sub-03/sub-03_echo-1_MEGRE.nii.gz").write_text("another")
    done, said = run(script, **places)
    assert done.returncode == 0, done.stderr
    assert sorted(said) == ["group", "sub-03"]
