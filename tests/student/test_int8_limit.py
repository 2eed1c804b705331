"""The number of images that an INT8 file may lose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vl2v.errors import StudentError
from vl2v.onnx_export.parity import Compared, allowed_images, check_parity


@pytest.mark.parametrize(
    ("tolerance", "images", "allowed"),
    [(0.5, 36, 1), (0.5, 199, 1), (0.5, 200, 1), (0.5, 400, 2), (0.5, 5000, 25), (0, 36, 0), (5, 70, 3), (100, 3, 3)],
)
def test_at_least_one_image_may_be_lost_unless_the_tolerance_is_zero(
    tolerance: float, images: int, allowed: int
) -> None:
    assert allowed_images(tolerance, images) == allowed
    float_file = Compared(1, images, 0.1, 0.1, None, 1.0, accuracy=1.0, student=1.0, quantised={})
    check_parity("int8", float_file, tolerance)
    check_parity("int8", replace(float_file, accuracy=1 - allowed / images), tolerance)
    check_parity("int8", replace(float_file, accuracy=None, student=None, agreement=1 - allowed / images), tolerance)
    if allowed < images:
        worse = replace(float_file, accuracy=1 - (allowed + 1) / images)
        with pytest.raises(StudentError, match=f"at most {allowed} of {images:,} images lost") as caught:
            check_parity("int8", worse, tolerance)
        assert ("or one image" in str(caught.value)) == (0 < tolerance * images < 100)
        assert f"found: {allowed + 1} images lost" in str(caught.value)
