"""Uncombined coils as a user gives them, from files to files."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bids_qsm.cli import main
from bids_qsm.images import Image, encode_image, load_image
from bids_qsm.report.record import record_from_json
from tests.one_process import one_process

EXAMPLE = Path(__file__).resolve().parents[1] / "data_examples" / "bids"


def sensitivities(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return those of eight coils at the corners of a cube, each with a phase of its own."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    coils = []
    for number, (a, b, c) in enumerate(itertools.product((-1.4, 1.4), repeat=3)):
        distance = np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2)
        coils.append(np.exp(-distance + 1j * (1.9 * number + 1.2 * distance)))
    return coils


@pytest.fixture
def dataset(tmp_path) -> Path:
    """The examples' second subject without its T1w, combined and as eight coils."""
    bids = tmp_path / "bids"
    for name in ("combined", "coils"):
        (bids / f"sub-{name}" / "anat").mkdir(parents=True)
    shutil.copy(EXAMPLE / "dataset_description.json", bids)
    for source in (EXAMPLE / "sub-02" / "anat").glob("*MEGRE*"):
        shutil.copy(
            source, bids / "sub-combined" / "anat" / source.name.replace("-02_", "-combined_")
        )
    for path in sorted((bids / "sub-combined" / "anat").glob("*part-mag_MEGRE.nii.gz")):
        magnitude = load_image(path)
        phase = load_image(path.with_name(path.name.replace("part-mag", "part-phase"))).data
        signal = magnitude.data * np.exp(1j * phase)
        fields = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        for number, sensitivity in enumerate(sensitivities(signal.shape), 1):
            own = signal * sensitivity
            for part, data in (("mag", np.abs(own)), ("phase", np.angle(own))):
                name = path.name.replace("part-mag", f"part-{part}")
                name = name.replace("-combined_", f"-coils_coil-{number}_")
                target = bids / "sub-coils" / "anat" / name
                target.write_bytes(encode_image(Image(data.astype(np.float32), magnitude.affine)))
                target.with_name(name.replace(".nii.gz", ".json")).write_text(json.dumps(fields))
    return bids


def test_single_coils_give_the_maps_of_the_combined_images(dataset, tmp_path, capsys) -> None:
    words = [str(dataset), str(tmp_path / "out"), "participant", "--preset", "consensus"]
    with one_process(pictures=False):
        assert main(words) == 0
    maps = {}
    for name in ("combined", "coils"):
        anat = tmp_path / "out" / f"sub-{name}" / "anat"
        for kind in ("Chimap", "R2starmap"):
            maps[name, kind] = load_image(anat / f"sub-{name}_{kind}.nii.gz").data
    both = (maps["combined", "Chimap"] != 0) & (maps["coils", "Chimap"] != 0)
    assert both.sum() > 0.97 * (maps["combined", "Chimap"] != 0).sum()
    for kind, least in (("Chimap", 0.97), ("R2starmap", 0.97)):
        one, other = (maps[name, kind][both] for name in ("combined", "coils"))
        assert np.corrcoef(one, other)[0, 1] > least
        assert np.polyfit(one, other, 1)[0] == pytest.approx(1.0, abs=0.05)
    for name, n_times in (("coils", 1), ("combined", 0)):
        text = (tmp_path / "out" / "logs" / f"sub-{name}_record.json").read_text()
        record = record_from_json(text)
        assert record.warnings.count("The 8 coils are combined by MCPC-3D-S.") == n_times
        assert [step.name for step in record.steps].count("coils") == n_times
        anat = tmp_path / "out" / f"sub-{name}" / "anat"
        fields = json.loads((anat / f"sub-{name}_R2starmap.json").read_text())
        assert fields["EstimationAlgorithm"].count("coils: mcpc3ds") == n_times


def test_a_coil_that_lacks_an_echo_is_refused_in_a_sentence(dataset, tmp_path, capsys) -> None:
    next((dataset / "sub-coils" / "anat").glob("*coil-3_echo-2_part-phase*.nii.gz")).unlink()
    words = [str(dataset), str(tmp_path / "out"), "participant", "--participant-label", "coils"]
    with one_process():
        assert main(words) == 1
    assert "this coil has no phase of echo 2" in " ".join(capsys.readouterr().out.split())
