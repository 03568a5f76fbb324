"""Tiny BIDS datasets, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.settings import Settings

SHAPE = (6, 5, 4)
TE_S = (0.004, 0.008, 0.012)


def oblique_affine() -> np.ndarray:
    angle = np.deg2rad(15)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.5, 2.0])
    affine[:3, 3] = (-3, -4, -5)
    return affine


class Dataset:
    """A dataset in the making: each method writes files and returns their paths."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.json("dataset_description.json", {"Name": "tiny", "BIDSVersion": "1.10.0"})

    def json(self, name: str, fields: Any) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
        return path

    def image(
        self,
        name: str,
        data: np.ndarray | None = None,
        fields: Mapping[str, Any] | None = None,
        affine: np.ndarray | None = None,
    ) -> Path:
        """Write ``sub-01/anat/<name>.nii.gz`` (the folder comes from the name) and its sidecar."""
        entities = dict(part.split("-", 1) for part in name.split("_")[:-1])
        session = f"ses-{entities['ses']}/" if "ses" in entities else ""
        path = self.root / f"sub-{entities['sub']}/{session}anat/{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = ramp() if data is None else data
        nib.Nifti1Image(data, oblique_affine() if affine is None else affine).to_filename(path)
        if fields is not None:
            path.with_name(f"{name}.json").write_text(json.dumps(fields))
        return path

    def megre(
        self,
        stem: str,
        parts: Sequence[str] = ("part-mag", "part-phase"),
        te_s: Sequence[float] = TE_S,
        suffix: str = "MEGRE",
        **fields: Any,
    ) -> list[Path]:
        """Write one image for each echo and part, such as ``sub-01_echo-1_part-mag_MEGRE``."""
        paths = []
        for number, te in enumerate(te_s, 1):
            for part in parts:
                name = "_".join(filter(None, [stem, f"echo-{number}", part, suffix]))
                sidecar = {"EchoTime": te, "MagneticFieldStrength": 3, **fields}
                paths.append(self.image(name, part_data(part, number), sidecar))
        return paths

    def settings(self, **changes: Any) -> Settings:
        return Settings(self.root, self.root.parent / "out", **changes)


def ramp() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def signal(number: int) -> np.ndarray:
    """Return the complex signal of an echo: smooth magnitude, phase that grows with time."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    magnitude = 1000 * np.exp(-0.3 * number) * (2 + x + 0.5 * y)
    return magnitude * np.exp(1j * number * (1.5 * z + 0.8 * x + 0.2))


def part_data(part: str, number: int) -> np.ndarray:
    value = signal(number)
    made = {
        "part-phase": np.rint(np.angle(value) / np.pi * 4096),
        "part-real": value.real,
        "part-imag": value.imag,
    }.get(part, np.abs(value))
    return made.astype(np.float32)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "raw")


@pytest.fixture
def echo_signal():
    """The complex signal behind the images that ``Dataset.megre`` writes."""
    return signal
