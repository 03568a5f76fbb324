"""Kill the program at random moments: nothing wrong is ever visible, the next run finishes.

``python -m tests.benchmarks.kills FOLDER [--kills 50] [--seed 1] [--forked]`` makes a dataset of
small series, processes it once for reference, and then, again and again, starts the program in an
output folder in which one series is finished, and kills it (SIGKILL).  After each kill every file
that is visible is compared with the reference.  After every tenth kill the program runs to its end,
and all must be there; then it starts anew, from outputs of other settings in every other case.

The program is started as a user does, with or without its children being killed with it.  With
``--forked`` it runs in a fork of this process, which has imported all that it needs: much faster.
Half of the kills then come just before a random change of a file, half after a random time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.tiny import tiny_dataset

SUBJECTS = ("01", "02")
ROUND = 10
OTHER = ("--reference", "none")


class Program:
    """The program, started as a user does."""

    def __init__(self, bids: Path, nprocs: str) -> None:
        self.words = [str(bids), "participant", "--nprocs", nprocs]

    def complete(self, out: Path, *more: str) -> float:
        """Run to the end and return how long it took."""
        started = time.perf_counter()
        subprocess.run(self._command(out, *more), check=True, capture_output=True)
        return time.perf_counter() - started

    def killed(self, out: Path, rng: random.Random, span: float) -> bool:
        """Start a run and kill it; return whether it was still running."""
        nothing = subprocess.DEVNULL
        process = subprocess.Popen(
            self._command(out), stdout=nothing, stderr=nothing, start_new_session=True
        )
        try:
            process.wait(rng.uniform(0.05, 0.95) * span)
            return False
        except subprocess.TimeoutExpired:
            if rng.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            return True

    def _command(self, out: Path, *more: str) -> list[str]:
        bids, *others = self.words
        return [sys.executable, "-m", "bids_qsm", bids, str(out), *others, *more]


class Forked(Program):
    """The program in a fork of this process, without pictures."""

    def __init__(self, bids: Path, nprocs: str) -> None:
        super().__init__(bids, nprocs)
        import bids_qsm.participant
        import bids_qsm.report.citations
        import bids_qsm.report.pages  # noqa: F401
        from bids_qsm.execution.steps import code_fingerprint

        code_fingerprint()  # kept: the code may be edited meanwhile
        self._n_changes = 0

    def complete(self, out: Path, *more: str) -> float:
        """Run to the end and return how long it took."""
        started = time.perf_counter()
        counted = out.parent / "changes"
        _, status = os.waitpid(self._fork(out, more, None, None, counted), 0)
        if status:
            raise RuntimeError(f"a run ended with status {status}")
        self._n_changes = max(self._n_changes, int(counted.read_text()))
        return time.perf_counter() - started

    def killed(self, out: Path, rng: random.Random, span: float) -> bool:
        """Start a run that kills itself; return whether it did not come to its end."""
        change = seconds = None
        if rng.random() < 0.5:
            change = rng.randrange(self._n_changes // 2)  # one of two series is finished
        else:
            seconds = rng.uniform(0.02, 0.4) * span
        _, status = os.waitpid(self._fork(out, (), change, seconds, out.parent / "ignored"), 0)
        return status != 0

    def _fork(
        self,
        out: Path,
        more: tuple[str, ...],
        change: int | None,
        seconds: float | None,
        counted: Path,
    ) -> int:
        process = os.fork()
        if process:
            return process
        from bids_qsm.cli import main
        from tests.one_process import one_process

        n_changes = 0

        def see(event: str, details: tuple[object, ...]) -> None:
            nonlocal n_changes
            is_change = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
                event == "open" and isinstance(details[2], int) and details[2] & os.O_CREAT
            )
            if is_change and str(details[0]).startswith(str(out)):
                if n_changes == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                n_changes += 1

        status = 1
        try:
            sys.addaudithook(see)
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            if seconds is not None:  # the signal's own action: the process ends at once
                signal.setitimer(signal.ITIMER_REAL, seconds)
            bids, *others = self.words
            with one_process(pictures=False):
                status = main([bids, str(out), *others, *more])
            counted.write_text(str(n_changes))
        finally:
            os._exit(status)


def images(out: Path) -> dict[str, bytes]:
    """Return all visible images, whose bytes do not depend on when they were made."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*.nii.gz"))
        if not any(part.startswith(".") for part in path.relative_to(out).parts)
    }


def faults(out: Path, allowed: list[dict[str, bytes]]) -> list[str]:
    """Return what is wrong with what is visible.

    Every image must be one of the whole ones that are allowed; every text must be whole; a record
    must be of outputs that are all there and are all of one run.
    """
    wrong = []
    there = images(out)
    for name, content in there.items():
        if not any(content == of_run.get(name) for of_run in allowed):
            wrong.append(f"{name} is not as it should be")
    for path in out.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if hidden or not path.is_file():
            continue
        if path.suffix == ".json":
            try:
                json.loads(path.read_text())
            except ValueError:
                wrong.append(f"{path.name} is cut short")
        end = {".tsv": (b"\n",), ".md": (b"\n",), ".html": (b"</html>", b"-->\n")}.get(path.suffix)
        if end is not None and not path.read_bytes().endswith(end):
            wrong.append(f"{path.name} is cut short")
    for path in (out / "logs").glob("*_record.json"):
        of_series = [
            name for name in json.loads(path.read_text())["outputs"] if name.endswith(".nii.gz")
        ]
        if all((out / name).exists() for name in of_series) and not any(
            all(there[name] == of_run.get(name) for name in of_series) for of_run in allowed
        ):
            wrong.append(f"{path.name} is of outputs of two runs")
    return wrong


def main() -> int:
    """Kill, look, finish; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nprocs", default="2")
    parser.add_argument("--forked", action="store_true")
    a = parser.parse_args()
    rng = random.Random(a.seed)
    shutil.rmtree(a.folder, ignore_errors=True)
    bids = tiny_dataset(a.folder / "bids", SUBJECTS)
    program = (Forked if a.forked else Program)(bids, a.nprocs)
    span = program.complete(a.folder / "reference")
    span = min(span, program.complete(a.folder / "other", *OTHER))
    reference, other = images(a.folder / "reference"), images(a.folder / "other")
    print(f"a run takes {span:.1f} s and makes {len(reference)} images", flush=True)
    out, n_wrong, n_running, is_new = a.folder / "out", 0, 0, True
    for number in range(a.kills):
        if is_new:
            shutil.rmtree(out, ignore_errors=True)
            if rng.random() < 0.5:
                shutil.copytree(a.folder / "other", out)
            program.complete(out, "--participant-label", "01")
            finished = (out / "logs" / "sub-01_record.json").read_bytes()
        is_killed = program.killed(out, rng, span)
        n_running += is_killed
        is_new = not is_killed or number % ROUND == ROUND - 1
        wrong = faults(out, [reference, other])
        if (out / "logs" / "sub-01_record.json").read_bytes() != finished:
            wrong.append("sub-01 was finished, and was made again")
        if is_new or number == a.kills - 1:
            took = program.complete(out)
            if images(out) != reference:
                wrong.append("the last run has not made what it should")
            left = [p.name for p in out.iterdir() if p.name.startswith((".staging", ".work"))]
            wrong += [f"{name} is left" for name in left]
            print(f"finished after kill {number + 1} in {took:.1f} s", flush=True)
        for sentence in wrong:
            print(f"kill {number + 1}: {sentence}", flush=True)
        n_wrong += len(wrong)
    print(f"{a.kills} kills, {n_running} of a run that went on; {n_wrong} faults")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
