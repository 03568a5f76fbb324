from __future__ import annotations

import dataclasses
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bids_qsm.bids.echoes import load_echoes
from bids_qsm.bids.inputs import find_series
from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import read_ahead
from bids_qsm.settings import Phase, Processing, Settings

SHAPE = (6, 5, 4)
STEP_RAD = np.pi / 4096


def load(dataset, **phase):
    processing = Processing(phase=Phase(**phase))
    (series,) = find_series(dataset.settings(processing=processing)).series
    return load_echoes(series, processing)


def apart(a, b):
    """Return the largest distance of two phases, whole turns aside."""
    return np.abs(np.angle(np.exp(1j * (a.astype(np.float64) - b)))).max()


@pytest.fixture
def truth(echo_signal):
    """The complex signal of the three echoes, shape (x, y, z, echo)."""
    return np.stack([echo_signal(n) for n in (1, 2, 3)], axis=-1)


@pytest.fixture
def refused(dataset):
    """The sentence with which a dataset's only series is refused."""

    def sentence(**phase) -> str:
        with pytest.raises(UnreadableInputError) as caught:
            load(dataset, **phase)
        assert str(dataset.root) in str(caught.value)
        return str(caught.value)

    return sentence


class TestForms:
    def test_integers(self, dataset, truth):
        dataset.megre("sub-01")
        loaded = load(dataset)
        assert loaded.magnitude.dtype == loaded.phase.dtype == np.float32
        assert loaded.magnitude.shape == loaded.phase.shape == (*SHAPE, 3)
        np.testing.assert_allclose(loaded.magnitude, np.abs(truth), rtol=1e-6)
        assert apart(loaded.phase, np.angle(truth)) < 0.51 * STEP_RAD + 1e-5
        assert np.abs(loaded.phase).max() < np.pi + 1e-5
        assert loaded.te_s == (0.004, 0.008, 0.012) and loaded.b0_t == 3
        assert loaded.geometry.shape == SHAPE
        assert loaded.geometry.voxel_mm == pytest.approx((1.0, 1.5, 2.0))
        assert loaded.geometry.b0_direction == pytest.approx((0, 0.2588, 0.9659), abs=1e-3)
        assert loaded.warnings == ()

    def test_radians(self, dataset, truth):
        for number, path in enumerate(dataset.megre("sub-01")[1::2]):
            radians = np.angle(truth[..., number]).astype(np.float32)
            nib.Nifti1Image(radians, nib.load(path).affine).to_filename(path)
        assert apart(load(dataset).phase, np.angle(truth)) < 1e-5

    def test_slope_and_intercept(self, dataset, truth):
        for number, path in enumerate(dataset.megre("sub-01")[1::2]):
            nifti = nib.Nifti1Image(
                np.angle(truth[..., number]).astype(np.float32), nib.load(path).affine
            )
            nifti.header.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
            nifti.to_filename(path)
        assert apart(load(dataset).phase, np.angle(truth)) < 1e-3

    def test_unsigned_integers_have_a_free_constant(self, dataset, truth):
        for number, path in enumerate(dataset.megre("sub-01")[1::2]):
            turns = np.angle(truth[..., number]) / (2 * np.pi) + 0.5
            stored = np.minimum(turns * 4096, 4095).astype(np.int16)
            nib.Nifti1Image(stored, nib.load(path).affine).to_filename(path)
        phase = load(dataset).phase
        evolved = np.angle(truth[..., 1:] / truth[..., :1])
        assert apart(phase[..., 1:] - phase[..., :1], evolved) < 4 * STEP_RAD

    def test_stack(self, dataset, truth):
        fields = {"EchoTime": [0.004, 0.008, 0.012], "MagneticFieldStrength": 3}
        dataset.image("sub-01_part-mag_MEGRE", np.abs(truth).astype(np.float32), fields)
        dataset.image("sub-01_part-phase_MEGRE", np.angle(truth).astype(np.float32), fields)
        loaded = load(dataset)
        np.testing.assert_allclose(loaded.magnitude, np.abs(truth), rtol=1e-6)
        assert apart(loaded.phase, np.angle(truth)) < 1e-5

    def test_real_and_imaginary(self, dataset, truth):
        dataset.megre("sub-01", parts=("part-real", "part-imag"))
        loaded = load(dataset)
        np.testing.assert_allclose(loaded.magnitude, np.abs(truth), rtol=1e-5)
        assert apart(loaded.phase, np.angle(truth)) < 1e-5

    def test_sign_that_alternates_from_slice_to_slice(self, dataset, truth):
        for path in dataset.megre("sub-01", parts=("part-real", "part-imag")):
            nifti = nib.load(path)
            data = np.asarray(nifti.dataobj).copy()
            data[:, :, 1::2] *= -1
            nib.Nifti1Image(data, nifti.affine).to_filename(path)
        loaded = load(dataset)
        assert apart(loaded.phase, np.angle(truth)) < 1e-5
        assert "changed from slice to slice" in loaded.warnings[0]

    def test_magnitude_only(self, dataset, truth):
        dataset.megre("sub-01", parts=("part-mag",))
        loaded = load(dataset)
        assert loaded.phase is None
        assert loaded.warnings == (
            "There is no phase: R2* alone is computed, and no susceptibility.",
        )

    def test_echoes_come_in_the_order_of_their_times(self, dataset, truth):
        dataset.megre("sub-01", te_s=(0.012, 0.008, 0.004))
        loaded = load(dataset)
        np.testing.assert_allclose(loaded.magnitude, np.abs(truth[..., ::-1]), rtol=1e-6)

    def test_single_echo(self, dataset, truth):
        dataset.megre("sub-01", te_s=(0.02,))
        loaded = load(dataset, units_per_turn=8192.0)  # these few voxels do not fill a turn
        assert apart(loaded.phase, np.angle(truth[..., :1])) < 0.51 * STEP_RAD + 1e-5

    def test_philips(self, shared_data, tmp_path):
        settings = Settings(shared_data / "philips3T", tmp_path)
        (series,) = find_series(settings).series
        loaded = load_echoes(series, settings.processing)
        assert loaded.phase.shape == (80, 80, 53, 2)
        assert loaded.phase.max() == pytest.approx(np.pi, abs=1e-5)


class TestCoils:
    FACTORS = (1.0, 0.6 * np.exp(2.0j), 0.3 * np.exp(-1.0j))

    def write(self, dataset, truth, parts):
        """Write three coils, each with a sensitivity and a phase of its own."""
        functions = {
            "mag": np.abs,
            "phase": lambda signal: np.rint(np.angle(signal) / STEP_RAD),
            "real": np.real,
            "imag": np.imag,
        }
        for coil, factor in enumerate(self.FACTORS, 1):
            for echo in range(3):
                for part in parts:
                    data = functions[part](factor * truth[..., echo]).astype(np.float32)
                    name = f"sub-01_coil-{coil}_echo-{echo + 1}_part-{part}_MEGRE"
                    fields = {"EchoTime": 0.004 * (echo + 1), "MagneticFieldStrength": 3}
                    dataset.image(name, data, fields)

    @pytest.mark.parametrize("parts", [("mag", "phase"), ("real", "imag")])
    def test_coils_are_combined(self, dataset, truth, parts):
        self.write(dataset, truth, parts)
        loaded = load(dataset, units_per_turn=8192.0)
        assert loaded.magnitude.dtype == loaded.phase.dtype == np.float32
        expected = np.abs(truth) * np.linalg.norm(self.FACTORS)
        np.testing.assert_allclose(loaded.magnitude, expected, rtol=1e-3)
        evolved = np.angle(truth[..., 1:] / truth[..., :1])
        assert apart(loaded.phase[..., 1:] - loaded.phase[..., :1], evolved) < 2 * STEP_RAD
        assert loaded.warnings == ("The 3 coils are combined by MCPC-3D-S.",)

    def test_sign(self, dataset, truth):
        self.write(dataset, truth, ("mag", "phase"))
        plain = load(dataset, units_per_turn=8192.0).phase
        assert apart(load(dataset, units_per_turn=8192.0, sign=-1).phase, -plain) < 1e-5

    def test_damaged_image_of_a_coil(self, dataset, truth, refused):
        self.write(dataset, truth, ("mag", "phase"))
        path = dataset.image("sub-01_coil-2_echo-2_part-mag_MEGRE", np.full(SHAPE, 7, np.float32))
        assert f"{path}: the image is constant" in refused(units_per_turn=8192.0)


class TestSettings:
    def test_sign(self, dataset):
        dataset.megre("sub-01")
        assert apart(load(dataset, sign=-1).phase, -load(dataset).phase) < 1e-5

    def test_units_per_turn(self, dataset):
        dataset.megre("sub-01")
        half = load(dataset, units_per_turn=16384.0).phase
        stored = load(dataset, units_per_turn=8192.0).phase
        assert apart(half, stored / 2) < 1e-5

    def test_b0_direction(self, dataset):
        dataset.megre("sub-01")
        loaded = load(dataset, b0_direction=(1.0, 0.0, 0.0))
        assert loaded.geometry.b0_direction == (1.0, 0.0, 0.0)


class TestRefusals:
    def change(self, dataset, number, change, parts=("part-mag", "part-phase")):
        path = dataset.megre("sub-01", parts)[number]
        nifti = nib.load(path)
        data = change(np.asarray(nifti.dataobj).copy())
        nib.Nifti1Image(data, nifti.affine).to_filename(path)
        return path

    @pytest.mark.parametrize("number", [2, 3])
    def test_no_number_at_all(self, dataset, refused, number):
        path = self.change(dataset, number, lambda data: np.full_like(data, np.nan))
        assert f"{path}: the image holds no number at all" in refused()

    @pytest.mark.parametrize("value", [0, 7])
    @pytest.mark.parametrize("number", [2, 3])
    def test_constant(self, dataset, refused, number, value):
        path = self.change(dataset, number, lambda data: np.full_like(data, value))
        assert f"{path}: the image is constant, with {value} everywhere" in refused()

    def test_constant_volume_of_a_stack(self, dataset, refused, truth):
        fields = {"EchoTime": [0.004, 0.008, 0.012], "MagneticFieldStrength": 3}
        stack = np.abs(truth).astype(np.float32)
        stack[..., 1] = 5
        dataset.image("sub-01_MEGRE", stack, fields)
        assert "sub-01_MEGRE.nii.gz: volume 2 is constant" in refused()

    @pytest.mark.parametrize("part", ["part-real", "part-imag"])
    def test_constant_part(self, dataset, refused, part):
        number = ["part-real", "part-imag"].index(part)
        self.change(dataset, number, np.zeros_like, parts=("part-real", "part-imag"))
        assert f"echo-1_{part}_MEGRE.nii.gz: the image is constant" in refused()

    def test_few_voxels_without_a_number(self, dataset):
        def spoil(data):
            data[0, :2, 0] = (np.nan, np.inf)
            return data

        path = self.change(dataset, 2, spoil)
        loaded = load(dataset)
        assert loaded.magnitude[0, 0, 0, 1] == loaded.magnitude[0, 1, 0, 1] == 0
        assert np.isfinite(loaded.magnitude).all()
        assert loaded.warnings == (
            f"{path}: the image has 2 voxels that are no number; they were set to 0.",
        )

    def test_cut_short(self, dataset, refused):
        noise = np.random.default_rng(3).normal(size=(32, 32, 32)).astype(np.float32)
        fields = {"EchoTime": 0.02, "MagneticFieldStrength": 3}
        dataset.image("sub-01_echo-1_part-mag_MEGRE", noise, fields)
        path = dataset.image("sub-01_echo-1_part-phase_MEGRE", noise, fields)
        path.write_bytes(path.read_bytes()[:-1000])
        assert f"{path}: the image cannot be read" in refused()

    def test_gone_since_it_was_found(self, dataset):
        path = dataset.megre("sub-01")[0]
        (series,) = find_series(dataset.settings()).series
        path.unlink()
        with pytest.raises(UnreadableInputError, match="there is no such file"):
            load_echoes(series, Processing())

    def test_unknown_phase_scale(self, dataset, refused):
        for path in dataset.megre("sub-01")[1::2]:
            nifti = nib.load(path)
            data = np.asarray(nifti.dataobj) * np.float32(0.0371)
            nib.Nifti1Image(data, nifti.affine).to_filename(path)
        assert "part-phase_MEGRE.nii.gz: " in refused()
        assert load(dataset, units_per_turn=2 * 4096 * 0.0371).phase is not None

    @pytest.mark.parametrize("is_filtered", [False, True])
    def test_filtered_phase(self, dataset, refused, is_filtered):
        random, shape = np.random.default_rng(4), (48, 48, 24)
        x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
        head = (x**2 + y**2 + z**2 < 0.7).astype(float)
        for number in (1, 2):
            noise = random.normal(size=(2, *shape)) / 50
            signal = head * np.exp(2j * number * (2 * z + x * y)) + noise[0] + 1j * noise[1]
            if is_filtered:
                smooth = gaussian_filter(signal.real, 1.5) + 1j * gaussian_filter(signal.imag, 1.5)
                signal *= np.exp(-1j * np.angle(smooth))
            fields = {"EchoTime": 0.01 * number, "MagneticFieldStrength": 3}
            for part, data in (("mag", np.abs(signal)), ("phase", np.angle(signal))):
                name = f"sub-01_echo-{number}_part-{part}_MEGRE"
                dataset.image(name, data.astype(np.float32), fields)
        if is_filtered:
            assert "the phase looks high-pass filtered, as for SWI" in refused()
        else:
            assert load(dataset).phase.shape == (*shape, 2)


def test_order_of_the_echo_numbers_does_not_matter(dataset, truth):
    names = {}
    for number, te in ((3, 0.004), (1, 0.008), (2, 0.012)):
        for part, data in (("mag", np.abs(truth)), ("phase", np.angle(truth))):
            echo = round(te / 0.004) - 1
            names[number, part] = dataset.image(
                f"sub-01_echo-{number}_part-{part}_MEGRE",
                data[..., echo].astype(np.float32),
                {"EchoTime": te, "MagneticFieldStrength": 3},
            )
    loaded = load(dataset)
    np.testing.assert_allclose(loaded.magnitude, np.abs(truth), rtol=1e-6)
    assert apart(loaded.phase, np.angle(truth)) < 1e-5


def test_memory(dataset):
    """At most the result, some volumes and a mask are held at once."""
    shape, random = (64, 64, 40), np.random.default_rng(1)
    x, y, z = np.meshgrid(*[np.linspace(-3, 3, n) for n in shape], indexing="ij")
    for number in range(1, 7):
        fields = {"EchoTime": 0.004 * number, "MagneticFieldStrength": 3}
        magnitude = (1000 * np.exp(-(x**2) - y**2) + random.random(shape)).astype(np.float32)
        phase = np.angle(np.exp(1j * number * (0.3 * x + 0.2 * z))).astype(np.float32)
        dataset.image(f"sub-01_echo-{number}_part-mag_MEGRE", magnitude, fields)
        dataset.image(f"sub-01_echo-{number}_part-phase_MEGRE", phase, fields)
    (series,) = find_series(dataset.settings()).series
    load_echoes(series, Processing())
    tracemalloc.start()
    loaded = load_echoes(series, Processing())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    result = loaded.magnitude.nbytes + loaded.phase.nbytes
    assert peak < 1.75 * result


def test_series_may_travel_to_another_process(dataset):
    import pickle

    dataset.megre("sub-01")
    (series,) = find_series(dataset.settings()).series
    assert pickle.loads(pickle.dumps(series)) == series
    assert dataclasses.replace(series, t1w=None).name == series.name


def test_images_that_are_read_ahead_are_taken_and_give_the_same(dataset) -> None:
    dataset.megre("sub-01")
    (series,) = find_series(dataset.settings()).series
    expected = load_echoes(series, Processing())
    ahead = read_ahead(series.files, 2)
    found = load_echoes(series, Processing(), ahead)
    assert not ahead
    np.testing.assert_array_equal(found.magnitude, expected.magnitude)
    np.testing.assert_array_equal(found.phase, expected.phase)


def test_an_image_that_cannot_be_read_ahead_is_refused_when_it_is_taken(dataset) -> None:
    dataset.megre("sub-01")
    (series,) = find_series(dataset.settings()).series
    series.files[1].unlink()
    ahead = read_ahead(series.files, 2)
    with pytest.raises(UnreadableInputError, match="there is no such file"):
        load_echoes(series, Processing(), ahead)
