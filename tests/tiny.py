"""A dataset of a few small series, which the real program processes in seconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from bids_qsm.images import Image, encode_image

SIZE, VOXEL_MM = 20, 6.0
TE_S = (0.005, 0.012, 0.020)
B0_T = 3.0


def tiny_dataset(folder: Path, subjects: tuple[str, ...] = ("01",)) -> Path:
    """Write a dataset of one three-echo series for each subject: a ball with a few sources."""
    folder.mkdir(parents=True)
    description = {"Name": "tiny", "BIDSVersion": "1.10.0"}
    (folder / "dataset_description.json").write_text(json.dumps(description))
    for subject in subjects:
        tiny_series(folder, subject)
    return folder


def tiny_series(folder: Path, subject: str) -> Path:
    """Write the series of one subject and return its folder."""
    rng = np.random.default_rng(int(hashlib.sha256(subject.encode()).hexdigest()[:8], 16))
    anat = folder / f"sub-{subject}" / "anat"
    anat.mkdir(parents=True)
    x, y, z = np.indices((SIZE, SIZE, SIZE)) - (SIZE - 1) / 2
    radius = np.sqrt(x**2 + y**2 + z**2)
    proton_density = np.where(radius < 0.4 * SIZE, 1000.0, 0.0)
    field_hz = 12 * z / SIZE + 8 * np.exp(-((x - 2) ** 2 + y**2 + z**2) / 8)
    affine = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    for echo, te_s in enumerate(TE_S, 1):
        signal = proton_density * np.exp(-20 * te_s + 2j * np.pi * field_hz * te_s)
        noise = rng.normal(size=(2, *signal.shape))
        signal = signal + 8 * (noise[0] + 1j * noise[1])
        for part, values in (("mag", np.abs(signal)), ("phase", np.angle(signal))):
            stem = f"sub-{subject}_echo-{echo}_part-{part}_MEGRE"
            image = Image(values.astype(np.float32), affine)
            (anat / f"{stem}.nii.gz").write_bytes(encode_image(image))
            fields = {"EchoTime": te_s, "MagneticFieldStrength": B0_T}
            (anat / f"{stem}.json").write_text(json.dumps(fields))
    return anat


def contents(out: Path) -> dict[str, object]:
    """Return all outputs but logs and pages; of the records what names no times, memory and key."""
    files: dict[str, object] = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if path.name.endswith("_record.json"):
            record = json.loads(path.read_text())
            files[name] = (record["outputs"], [s["parameters"] for s in record["steps"]])
        elif path.is_file() and not name.startswith("logs/sub-") and path.suffix != ".html":
            files[name] = path.read_bytes()
    return files
