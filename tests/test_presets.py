"""Every preset is made of methods and options that exist, and leads from phase to a sound map."""

from __future__ import annotations

import numpy as np
import pytest

from bids_qsm.bids.echoes import Echoes
from bids_qsm.choices import METHODS, method, planned_steps
from bids_qsm.errors import CommandLineError
from bids_qsm.numerics.fieldmap import FieldMap
from bids_qsm.numerics.geometry import (
    Geometry,
    dipole_kernel,
    forward_fft,
    hz_per_ppm,
    inverse_fft,
)
from bids_qsm.numerics.registry import choose
from bids_qsm.participant import FIELD_STEPS, fit_total_field
from bids_qsm.presets import PRESETS
from bids_qsm.report.consensus import consensus_checklist
from bids_qsm.report.methods import methods_text
from bids_qsm.report.record import ReferenceRecord, SeriesRecord
from bids_qsm.settings import (
    Method,
    Processing,
    Settings,
    as_json,
    changed_from_preset,
    processing_from,
    read_processing,
)

HZ_PER_PPM = hz_per_ppm(3.0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_resolves(name) -> None:
    processing = processing_from({"preset": name})
    assert processing.preset == name
    assert changed_from_preset(processing) == ()
    for step, methods in METHODS.items():
        chosen = getattr(processing, step)
        function, options = choose(step, methods, chosen.name, chosen.options)
        assert function is methods[chosen.name]
        assert options.items() >= dict(chosen.options).items()


def test_presets_differ() -> None:
    chosen = [processing_from({}, name) for name in PRESETS]
    texts = {as_json(p).replace(f'"preset": "{p.preset}"', "") for p in chosen}
    assert len(texts) == len(PRESETS)
    assert chosen[0] == Processing()


def test_a_file_changes_single_entries_of_a_preset(tmp_path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        'preset = "single-echo"\n[phase]\nsign = -1\n[background]\nthreshold = 0.02\n'
        '[inversion]\nmethod = "tkd"\n'
    )
    processing = read_processing(file)
    assert processing.preset == "single-echo"
    assert (processing.phase.accept_filtered, processing.phase.sign) == (True, -1)
    assert processing.background == Method("vsharp", {"threshold": 0.02})
    assert processing.inversion == Method("tkd")
    assert processing.unwrapping == Method("best-path")
    assert changed_from_preset(processing) == ("phase", "background", "inversion")
    # the caller's preset stands before the file's; the file's entries stay
    processing = read_processing(file, "fast")
    assert (processing.preset, processing.field) == ("fast", Method("linear"))
    assert processing.background.options["threshold"] == 0.02
    assert processing.inversion == Method("tkd")


def test_options_of_a_preset_stay_with_their_method_alone(monkeypatch) -> None:
    from bids_qsm import presets

    mine = presets.Preset("", {"inversion": {"method": "tkd", "threshold": 0.2}})
    monkeypatch.setitem(presets.PRESETS, "mine", mine)
    same = processing_from({"preset": "mine", "inversion": {"margin_mm": 8.0}})
    assert same.inversion == Method("tkd", {"threshold": 0.2, "margin_mm": 8.0})
    other = processing_from({"preset": "mine", "inversion": {"method": "l2"}})
    assert other.inversion == Method("l2", {})


@pytest.mark.parametrize("tables", [{"preset": "fsat"}, {"preset": 3}])
def test_an_unknown_preset_is_refused(tables) -> None:
    with pytest.raises(CommandLineError, match=r"preset.*(choose one of: default|a text)"):
        processing_from(tables)
    with pytest.raises(CommandLineError, match="no preset 'nope'; choose one of: default"):
        processing_from({}, "nope")


@pytest.mark.parametrize("name", PRESETS)
def test_the_record_names_the_preset(name, tmp_path) -> None:
    settings = Settings(tmp_path, tmp_path, processing=processing_from({"preset": name}))
    steps = planned_steps(settings)
    assert (steps[0].name, steps[0].method, steps[0].parameters) == ("preset", name, {})
    assert f"started from the preset `{name}`." in methods_text(steps)


def test_what_was_changed_in_the_preset_is_said(tmp_path) -> None:
    processing = processing_from({"reference": "none", "inversion": {"method": "tkd"}})
    text = methods_text(planned_steps(Settings(tmp_path, tmp_path, processing=processing)))
    assert "the preset `default`. Parameters: `changed = (inversion, reference)`." in text


def test_the_consensus_preset_meets_every_point(tmp_path) -> None:
    settings = Settings(tmp_path, tmp_path, processing=processing_from({"preset": "consensus"}))
    record = SeriesRecord(
        subject="01",
        session=None,
        name="sub-01",
        version="1",
        facts={},
        steps=planned_steps(settings),
        warnings=(),
        figures=(),
        reference=ReferenceRecord("whole brain", 0.0, 0.03, 1000),
    )
    checklist = consensus_checklist(record)
    assert [item.point for item in checklist if item.met != "yes"] == []
    assert processing_from({}, "consensus").field == Method("nonlinear")
    assert processing_from({}, "consensus").reference == "whole-brain"


@pytest.fixture(scope="module")
def phantom():
    """Complex signal of a ball with two nuclei of 0.1 ppm, a source outside, and its truth."""
    geometry = Geometry((40, 40, 36), (2.0, 2.0, 2.0), (0.0, 0.0, 1.0))
    x, y, z = np.meshgrid(*[np.arange(n) - n // 2 for n in geometry.shape], indexing="ij")
    brain = x**2 + y**2 + z**2 < 14**2
    nuclei = sum(((x - side) ** 2 + y**2 + z**2 < 3.5**2).astype(np.float32) for side in (-6, 6))
    chi_ppm = 0.1 * nuclei
    sources = chi_ppm + 3.0 * ((y - 17) ** 2 + x**2 + (z + 6) ** 2 < 2.5**2)
    spectrum = forward_fft(sources.astype(np.float32)) * dipole_kernel(geometry)
    field_hz = HZ_PER_PPM * inverse_fft(spectrum, geometry.shape)
    return geometry, brain, chi_ppm, nuclei > 0, field_hz


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_leads_from_phase_to_susceptibility(name, phantom) -> None:
    geometry, brain, chi_ppm, nuclei, field_hz = phantom
    te_s = (0.02,) if name == "single-echo" else (0.004, 0.010, 0.016, 0.022)
    rng = np.random.default_rng(1)
    signal = np.stack([np.exp(-20 * te + 2j * np.pi * te * field_hz) for te in te_s], axis=-1)
    signal *= 100 * np.where(brain, 1.0, 0.02)[..., None]
    signal += rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
    magnitude, phase = (f(signal).astype(np.float32) for f in (np.abs, np.angle))
    processing = processing_from({"preset": name})

    echoes = Echoes(magnitude, phase, te_s, 3.0, geometry, np.eye(4), ())
    combined = np.sqrt((magnitude**2).sum(axis=-1))
    chosen = {step: method(processing, step) for step in FIELD_STEPS}
    total = fit_total_field(echoes, combined, brain, chosen)
    noise_ppm = np.where(total.mask, total.noise_hz / HZ_PER_PPM, np.inf).astype(np.float32)
    field_ppm = np.where(total.mask, total.field_hz / HZ_PER_PPM, 0).astype(np.float32)
    remove, options = method(processing, "background")
    local = remove(FieldMap(field_ppm, noise_ppm, combined, total.mask, geometry), **options)
    invert, options = method(processing, "inversion")
    found = invert(local, **options)

    assert np.isfinite(found).all()
    assert not found[~local.mask].any()
    assert local.mask.sum() > 0.5 * brain.sum()
    white = local.mask & ~nuclei
    contrast = found[nuclei & local.mask].mean() - found[white].mean()
    assert 0.07 < contrast < 0.12
    assert np.corrcoef(found[local.mask], chi_ppm[local.mask])[0, 1] > 0.75
