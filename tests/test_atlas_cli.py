"""The words after ``bids-qsm atlas``."""

from __future__ import annotations

import pytest

from bids_qsm.anatomy.atlas_import import FORMATS
from bids_qsm.anatomy.atlases import load_atlas
from bids_qsm.atlas_cli import FORMATS as NAMES
from bids_qsm.atlas_cli import main, parser
from tests.anatomy.atlas_makers import TABLE, putamina, save, write_folder


@pytest.fixture(autouse=True)
def same_environment(monkeypatch):
    """Threads that main() sets are not left for other tests."""
    for name in (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
        "ANTS_RANDOM_SEED", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ):  # fmt: skip
        monkeypatch.setenv(name, "1")


def test_formats_are_those_that_can_be_imported():
    assert tuple(FORMATS) == NAMES


def test_list_shows_names_licences_and_places(tmp_path, monkeypatch, capsys):
    write_folder(tmp_path)
    (tmp_path / "atlas-Broken").mkdir()
    monkeypatch.setenv("BIDS_QSM_ATLASES", str(tmp_path))
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert "default: Harvard-Oxford" in out and "CIT168: " in out and "7TAMI: " in out
    assert f"Tiny: A tiny one\n  licence: CC0\n  where: {tmp_path / 'atlas-Tiny'}\n" in out
    assert "2 labels: putamen\n" in out and "Broken: cannot be read" in out


def test_check_says_ok_or_what_is_wrong(tmp_path, capsys):
    good, bad = write_folder(tmp_path / "a"), write_folder(tmp_path / "b")
    save(next(bad.glob("*.nii.gz")), putamina()[::-1].copy())
    assert main(["check", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: OK\n"
    assert main(["check", str(good), str(bad)]) == 1
    assert "on the wrong side" in capsys.readouterr().out


def test_import_writes_a_folder_and_warns(tmp_path, capsys):
    path = save(tmp_path / "n.nii.gz", putamina())
    table = tmp_path / "other.tsv"
    table.write_text(TABLE)
    words = ["import", "nifti", str(path), str(tmp_path / "out"), "--table", str(table)]
    assert main([*words, "--name", "mine", "--reference", "A", "--reference", "B"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'out' / 'atlas-mine'}\n"
    assert err == "warning: mine: no licence is stated; add 'License' to the description.\n"
    assert load_atlas(str(tmp_path / "out" / "atlas-mine")).references == ("A", "B")
    assert main([*words, "--name", "free", "--license", "CC0"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["import", "nifti", "nope", "out"], 66, "nope: there is no such file or folder"),
        (["import", "templateflow", ".", "out"], 2, "say which atlas by --name"),
        (["build", "out", "--from", ".", "--name", "x"], 18, "nobody there has a T1w image"),
        (["build", "out", "--from", ".", "--name", "x", "--template"], 18, "nobody there has"),
    ],
)
def test_bad_words_give_a_sentence_and_a_status(
    words, status, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    err = capsys.readouterr().err
    assert err.startswith("bids-qsm atlas: ") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["paint"], ["import", "xyz", "a", "b"], ["build", "out"]])
def test_words_that_make_no_sense_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(words)
    assert end.value.code == 2
