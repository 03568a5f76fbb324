from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bids_qsm import __version__
from bids_qsm.cli import main, settings_from


def test_words_become_settings(tmp_path) -> None:
    settings = settings_from(
        [
            str(tmp_path), str(tmp_path / "out"), "participant",
            "--participant-label", "sub-02", "01",
            "--session-label", "ses-a",
            "-d", "mask=/data/masks",
            "--output-spaces", "orig",
            "--nprocs", "3", "--omp-nthreads", "2", "--mem-gb", "5.5",
            "--with", "separation,swi", "--with", "swi",
            "--reference", "whole-brain", "--random-seed", "7", "-vv", "--dry-run",
        ]
    )  # fmt: skip
    assert settings.participant_labels == ("01", "02")
    assert settings.session_labels == ("a",)
    assert settings.derivatives == {"mask": Path("/data/masks")}
    assert settings.output_spaces == ("orig",)
    assert settings.extra_steps == ("swi", "separation")
    assert (settings.nprocs, settings.omp_nthreads, settings.mem_gb) == (3, 2, 5.5)
    assert settings.processing.reference == "whole-brain"
    assert (settings.random_seed, settings.verbosity, settings.dry_run) == (7, 2, True)


def test_config_file_is_read_and_overridden_by_words(tmp_path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('reference = "none"\n[inversion]\nmethod = "tkd"\nthreshold = 0.1\n')
    words = [str(tmp_path), str(tmp_path / "o"), "participant", "--config-file", str(file)]
    processing = settings_from(words).processing
    assert processing.inversion.name == "tkd"
    assert processing.inversion.options == {"threshold": 0.1}
    assert processing.reference == "none"
    assert settings_from([*words, "--reference", "auto"]).processing.reference == "auto"


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["in", "out", "participant", "-d", "mask"], 2, "write it as NAME=PATH"),
        (["in", "out", "participant", "--config-file", "nope.toml"], 66, "cannot be read"),
        (["in", "out", "participant", "--with", "swi,qsm"], 2, "'qsm': there is no such step"),
        (["nope", "out", "participant"], 16, "nope"),
    ],
)
def test_bad_words_give_a_sentence_and_a_status(
    words, status, sentence, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [[], ["a", "b", "analysis"], ["a", "b", "group", "--nprocs", "0"]]
)
def test_argparse_errors_exit_with_two(words) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_version(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"bids-qsm {__version__}"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from bids_qsm.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split("LOADED")[1]
    for heavy in ("numpy", "scipy", "numba", "nibabel", "ants", "bids", "pandas", "matplotlib"):
        assert f"'{heavy}'" not in loaded
