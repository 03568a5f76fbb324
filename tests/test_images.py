from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from bids_qsm.errors import UnreadableInputError
from bids_qsm.images import Image, b0_direction, encode_image, load_image, voxel_sizes_mm


def oblique_affine(angle: float = 0.3) -> np.ndarray:
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.5, 2.0])
    affine[:3, 3] = [-10, 20, 5]
    return affine


def test_affine_tells_voxels_and_field() -> None:
    affine = oblique_affine()
    assert voxel_sizes_mm(affine) == pytest.approx((1.0, 1.5, 2.0))
    assert b0_direction(affine) == pytest.approx((0.0, np.sin(0.3), np.cos(0.3)))


def test_field_direction_follows_flips_and_permutations() -> None:
    affine = oblique_affine()
    flipped = affine @ np.diag([1, -1, 1, 1])
    assert b0_direction(flipped) == pytest.approx((0.0, -np.sin(0.3), np.cos(0.3)))
    permuted = affine[:, [2, 0, 1, 3]]
    assert b0_direction(permuted) == pytest.approx((np.cos(0.3), 0.0, np.sin(0.3)))


def test_round_trip_keeps_data_and_place(tmp_path, rng) -> None:
    image = Image(rng.standard_normal((5, 6, 7)).astype(np.float32), oblique_affine())
    path = tmp_path / "x.nii.gz"
    path.write_bytes(encode_image(image))
    back = load_image(path)
    np.testing.assert_array_equal(back.data, image.data)
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-6)
    assert int(nib.load(path).header["sform_code"]) == 1
    assert encode_image(image) == path.read_bytes()


@pytest.mark.parametrize(("shape", "units"), [((3, 4, 5), "unknown"), ((3, 4, 5, 2), "sec")])
def test_units_of_the_axes(tmp_path, shape, units) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(encode_image(Image(np.zeros(shape, np.float32), np.eye(4))))
    assert nib.load(path).header.get_xyzt_units() == ("mm", units)


def test_mask_is_stored_as_bytes_and_slope_is_applied(tmp_path) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1] = True
    path = tmp_path / "m.nii.gz"
    path.write_bytes(encode_image(Image(mask, np.eye(4))))
    assert nib.load(path).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(load_image(path, bool).data, mask)
    scaled = nib.Nifti1Image(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(4))
    scaled.header.set_slope_inter(0.5, -2)
    nib.save(scaled, path)
    assert load_image(path).data.reshape(-1)[[0, 26]].tolist() == [-2.0, 11.0]
    assert load_image(path, np.int16).data.reshape(-1)[3] == 0  # -0.5 rounds to even


def test_damaged_files_give_a_sentence(tmp_path, rng) -> None:
    whole = encode_image(Image(rng.standard_normal((20, 20, 20)).astype(np.float32), np.eye(4)))
    for name, content in {
        "short.nii.gz": whole[: len(whole) // 2],
        "noise.nii.gz": gzip.compress(b"no image" * 100),
        "empty.nii.gz": b"",
        "flipped.nii.gz": whole[:300] + b"\x00\xff" * 20 + whole[340:],
        "checksum.nii.gz": whole[:-8] + bytes(4) + whole[-4:],
        "longer.nii.gz": gzip.compress(gzip.decompress(whole) + bytes(2**21)),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UnreadableInputError, match=name):
            load_image(path)
    with pytest.raises(UnreadableInputError, match="no such file"):
        load_image(tmp_path / "absent.nii.gz")


def test_chosen_volumes_of_a_stack(tmp_path, rng) -> None:
    stack = rng.standard_normal((4, 3, 2, 5)).astype(np.float32)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(encode_image(Image(stack, np.eye(4))))
    np.testing.assert_array_equal(load_image(path, volumes=[3, 0]).data, stack[..., [3, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.int32, np.float32, ">f4", float])
@pytest.mark.parametrize("scale", [(None, None), (1.0, 0.0), (1.0, -4096.0), (0.123456789, 3.3)])
def test_packed_voxels_are_those_that_nibabel_reads(tmp_path, rng, dtype, scale) -> None:
    values = np.asarray(rng.integers(0, 200, (5, 4, 3, 2))).astype(dtype)
    nifti = nib.Nifti1Image(values, oblique_affine(), dtype=np.dtype(dtype))
    nifti.header.set_slope_inter(*scale)
    packed, plain = tmp_path / "x.nii.gz", tmp_path / "x.nii"
    plain.write_bytes(nifti.to_bytes())
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    expected = np.asarray(np.asanyarray(nib.load(packed).dataobj), np.float32)
    for volumes in (None, [1, 0]):
        for path in (packed, plain):
            image = load_image(path, volumes=volumes)
            wanted = expected if volumes is None else expected[..., volumes]
            np.testing.assert_array_equal(image.data, wanted)
            np.testing.assert_array_equal(image.affine, nib.load(packed).affine)
            assert image.data.flags.writeable and image.data.flags.c_contiguous
