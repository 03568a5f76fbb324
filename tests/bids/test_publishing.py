from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_qsm.bids import publishing
from bids_qsm.bids.publishing import Staging, encode_table, write_text
from bids_qsm.errors import UnwritableOutputError
from bids_qsm.images import Image, load_image

CHI = Path("sub-01/anat/sub-01_Chimap.nii.gz")


@pytest.fixture
def image() -> Image:
    return Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.diag([1.0, 2, 3, 1]))


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_published_together_at_the_end(tmp_path, image):
    with Staging(tmp_path, "sub-01") as staging:
        staging.write_image(CHI, image, {"Units": "ppm"})
        staging.write(Path("logs/a.json"), "{}")
        staging.path(Path("sub-01/figures/a.png")).write_bytes(b"png")
        assert not (tmp_path / CHI).exists() and not (tmp_path / "logs").exists()
    assert files(tmp_path) == [
        "logs/a.json",
        "sub-01/anat/sub-01_Chimap.json",
        "sub-01/anat/sub-01_Chimap.nii.gz",
        "sub-01/figures/a.png",
    ]
    np.testing.assert_array_equal(load_image(tmp_path / CHI).data, image.data)
    assert not list(tmp_path.glob(".*"))


def test_released_before_the_end(tmp_path, image):
    with Staging(tmp_path, "sub-01") as staging:
        staging.write_image(CHI, image, {"Units": "ppm"})
        staging.release()
        np.testing.assert_array_equal(load_image(tmp_path / CHI).data, image.data)
        staging.write(Path("logs/a.json"), "{}")
        assert [path.name for path in staging.files()] == [CHI.name, "sub-01_Chimap.json", "a.json"]
        assert not (tmp_path / "logs").exists()
    assert (tmp_path / "logs/a.json").exists()


def test_nothing_is_published_after_an_exception(tmp_path, image):
    with pytest.raises(KeyboardInterrupt), Staging(tmp_path, "sub-01") as staging:
        staging.write_image(CHI, image, {})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_remains_of_a_killed_run_are_removed(tmp_path):
    killed = Staging(tmp_path, "sub-01")
    killed.__enter__()
    killed.write(Path("sub-01/anat/half.nii.gz"), b"half")
    other = Staging(tmp_path, "sub-02").__enter__()
    with Staging(tmp_path, "sub-01") as staging:
        staging.write(Path("a.txt"), "a")
    assert files(tmp_path) == ["a.txt"]
    assert other.folder.is_dir() and not killed.folder.exists()


def test_data_come_before_their_sidecar(tmp_path, image, monkeypatch):
    moved = []
    replace = Path.replace

    def noted(self, target):
        if not self.name.startswith("."):
            moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    with Staging(tmp_path, "sub-01") as staging:
        staging.write_image(CHI, image, {})
        staging.write_image(Path("sub-01/anat/sub-01_S0map.nii.gz"), image, {})
    assert [Path(name).suffix for name in moved] == [".gz", ".gz", ".json", ".json"]


def test_equal_content_gives_equal_bytes(tmp_path, image):
    for name in ("a", "b"):
        with Staging(tmp_path / name, "sub-01") as staging:
            staging.write_image(CHI, image, {"Units": "ppm", "Description": "χ"})
    for path in files(tmp_path / "a"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_unwritable(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UnwritableOutputError) as caught, Staging(tmp_path, "sub-01") as staging:
        staging.write(CHI, b"")
    assert os.strerror(number) in str(caught.value) and CHI.name in str(caught.value)
    with pytest.raises(UnwritableOutputError), Staging(tmp_path, "sub-01") as staging:
        staging.write_image(CHI, Image(np.zeros((2, 2, 2)), np.eye(4)), {})
    assert list(tmp_path.iterdir()) == []


def test_target_that_cannot_be_replaced(tmp_path):
    (tmp_path / "a.txt" / "taken").mkdir(parents=True)
    with pytest.raises(UnwritableOutputError) as caught, Staging(tmp_path, "sub-01") as staging:
        staging.write(Path("a.txt"), "a")
    assert f"{tmp_path / 'a.txt'}: it cannot be written" in str(caught.value)
    assert not staging.folder.exists()


def test_output_below_a_file(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UnwritableOutputError):
        Staging(tmp_path / "out", "sub-01").__enter__()


def test_old_content_stays_if_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_text(path, "old")

    def fail(self, content):
        with self.open("wb") as half:
            half.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publishing.Path, "write_bytes", fail)
    with pytest.raises(UnwritableOutputError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old" and files(tmp_path) == ["page.html"]


def test_table():
    table = pd.DataFrame({"index": [1, 2], "mean": [1 / 3, np.nan], "name": ["a", None]})
    assert encode_table(table) == "index\tmean\tname\n1\t0.333333\ta\n2\tn/a\tn/a\n"
