from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm.compare_cli import main
from bids_qsm.images import Image, encode_image

AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1.5, 0, -15], [0, 0, 2.0, -10], [0, 0, 0, 1]])
NAMES = "index\tname\n11\tLeft-Caudate\n50\tRight-Caudate\n13\tleft pallidum\n"


def labels(shift: int = 0) -> np.ndarray:
    data = np.zeros((30, 24, 20), np.int16)
    data[4 + shift : 12 + shift, 5:15, 5:15] = 11
    data[16:24, 5:15, 5:15] = 50
    data[12:15, 18:22, 5:15] = 13
    return data


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(Image(data, affine)))
    return str(path)


def compared(*words: str, tsv: Path) -> pd.DataFrame:
    assert main([*words, "--tsv", str(tsv)]) == 0
    return pd.read_csv(tsv, sep="\t").set_index("index")


@pytest.fixture
def pair(tmp_path) -> tuple[str, str]:
    (tmp_path / "a.tsv").write_text(NAMES)
    return save(tmp_path / "a.nii.gz", labels()), save(tmp_path / "b.nii.gz", labels(shift=2))


def test_table_is_written_and_printed(pair, tmp_path, capsys) -> None:
    table = compared(*pair, tsv=tmp_path / "new" / "t.tsv")
    assert list(table.index) == [11, 13, 50]
    assert table.name[50] == "Right-Caudate"
    assert table.dice[11] == pytest.approx(0.75)
    assert table.dice[13] == table.jaccard[50] == 1
    assert table.volume_a_ml[11] == pytest.approx(8 * 10 * 10 * 3 / 1000)
    shown, said = capsys.readouterr()
    assert "Left-Caudate" in shown and "0.750" in shown and "mean" in shown
    assert "a.tsv" in said


def test_labels_by_name_number_and_without_side(pair, tmp_path) -> None:
    table = compared(*pair, "--labels", "caudate,13", tsv=tmp_path / "t.tsv")
    assert list(table.index) == [11, 50, 13]
    assert list(compared(*pair, "--labels", "Left-Caudate", tsv=tmp_path / "t.tsv").index) == [11]


def test_sides_are_merged(pair, tmp_path) -> None:
    table = compared(*pair, "--merge-sides", tsv=tmp_path / "t.tsv")
    assert table.name.to_dict() == {11: "Caudate", 13: "pallidum"}
    assert table.dice[11] == pytest.approx((600 + 800) / 1600)
    words = ("--merge-sides", "--labels", "caudate,50")
    assert list(compared(*pair, *words, tsv=tmp_path / "t.tsv").index) == [11]


def test_other_numbers_are_paired(pair, tmp_path) -> None:
    other = labels(shift=2)
    other[other > 0] = np.where(other[other > 0] == 13, 4, 1)  # both caudates have one number
    b = save(tmp_path / "other.nii.gz", other)
    table = compared(pair[0], b, "--map", "11=1,13=4", "--merge-sides", tsv=tmp_path / "t.tsv")
    assert table.dice[11] == pytest.approx((600 + 800) / 1600) and table.dice[13] == 1
    paired = compared(pair[0], b, "--map", "13=4", tsv=tmp_path / "t.tsv")
    assert list(paired.index) == [13]


def test_other_grids_are_resampled_and_said(pair, tmp_path, capsys) -> None:
    flipped = AFFINE @ np.diag([-1, 1, 1, 1.0])
    flipped[:3, 3] = (AFFINE @ [29, 0, 0, 1])[:3]
    b = save(tmp_path / "flipped.nii.gz", labels(shift=2)[::-1], flipped)
    table = compared(pair[0], b, tsv=tmp_path / "t.tsv")
    assert "label with its largest share" in capsys.readouterr().err
    expected = compared(*pair, tsv=tmp_path / "t.tsv")
    pd.testing.assert_frame_equal(table, expected)
    cut = save(tmp_path / "cut.nii.gz", labels()[:, :10])
    table = compared(cut, pair[0], tsv=tmp_path / "t.tsv")
    assert table.dice[11] == table.dice[50] == 1
    assert "lie beyond" in capsys.readouterr().err


def test_half_a_voxel_apart_is_no_disagreement(tmp_path) -> None:
    """By the nearest voxel these would overlap by .89 at most, moved as a whole."""
    at = np.indices((30, 30, 30), float)
    ball, shifted = (
        11 * (((at + shift - 14) ** 2).sum(axis=0) < 49).astype(np.int16) for shift in (0, 0.48)
    )
    moved = np.eye(4)
    moved[:3, 3] = 0.48
    a = save(tmp_path / "a.nii.gz", ball, np.eye(4))
    b = save(tmp_path / "b.nii.gz", shifted, moved)
    table = compared(a, b, tsv=tmp_path / "t.tsv")
    assert table.dice[11] > 0.97


def test_names_are_found_in_the_dataset(tmp_path) -> None:
    (tmp_path / "atlas-X_dseg.tsv").write_text(NAMES)
    (tmp_path / "atlas-Y_dseg.tsv").write_text(NAMES.replace("Caudate", "Wrong"))
    a = save(tmp_path / "sub-1" / "anat" / "sub-1_space-orig_atlas-X_dseg.nii.gz", labels())
    assert compared(a, a, tsv=tmp_path / "t.tsv").name[11] == "Left-Caudate"


def test_without_names_the_numbers_stand(tmp_path, capsys) -> None:
    a = save(tmp_path / "x.nii.gz", labels())
    table = compared(a, a, tsv=tmp_path / "t.tsv")
    assert table.name.isna().all() and (table.dice == 1).all()
    assert main([a, a, "--merge-sides"]) == 2
    assert "--names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["a.nii.gz", "missing.nii.gz"], 66, "no such file"),
        (["a.nii.gz", "far.nii.gz"], 66, "do not overlap"),
        (["a.nii.gz", "soft.nii.gz"], 66, "not whole numbers"),
        (["a.nii.gz", "four.nii.gz"], 66, "3D"),
        (["zero.nii.gz", "zero.nii.gz"], 66, "no label"),
        (["a.nii.gz", "a.nii.gz", "--labels", "nose"], 2, "known: Left-Caudate"),
        (["a.nii.gz", "a.nii.gz", "--map", "11:1"], 2, "A=B"),
        (["a.nii.gz", "a.nii.gz", "--map", "11=1,50=1"], 2, "paired twice"),
        (["a.nii.gz", "a.nii.gz", "--names", "a.nii.gz"], 66, "table"),
        (["a.nii.gz", "a.nii.gz", "--names", "bad.tsv"], 66, "columns index"),
        (["a.nii.gz", "a.nii.gz", "--tsv", "bad.tsv/t.tsv"], 73, "cannot be written"),
    ],
)
def test_errors_are_one_sentence(pair, tmp_path, monkeypatch, capsys, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    far = AFFINE.copy()
    far[:3, 3] += 500
    save(tmp_path / "far.nii.gz", labels(), far)
    save(tmp_path / "soft.nii.gz", labels() / np.float32(3))
    save(tmp_path / "four.nii.gz", np.stack([labels()] * 2, axis=-1))
    save(tmp_path / "zero.nii.gz", np.zeros((4, 4, 4), np.int16))
    Path("bad.tsv").write_text("number\tname\n1\tx\n")
    assert main(words) == status
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("bids-qsm compare: ")
    assert "Traceback" not in said


def test_wrong_words_leave_with_two() -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["only-one.nii.gz"])
    assert stopped.value.code == 2
