from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vl2v.errors import TeacherError
from vl2v.teacher.http.packing import Limits, Size, fit_image, image_size, pack, text_size
from vl2v_runtime.imaging import decode


def noise(size: tuple[int, int], form: str, **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=40),
    st.integers(1, 10),
    st.integers(1, 120),
    st.none() | st.integers(1, 120),
)
def test_requests_are_filled_up_to_their_limits(
    items: list[tuple[int, int]], most: int, heavy: int, pixels: int | None
) -> None:
    limits = Limits(most, most, request_bytes=heavy, request_pixels=pixels)
    batches = list(pack(items, lambda item: Size(*item), most, limits))
    assert [item for batch in batches for item in batch] == items

    def fits(batch: list[tuple[int, int]]) -> bool:
        total = [sum(part) for part in zip(*batch, strict=True)]
        return len(batch) <= most and total[0] <= heavy and total[1] <= (pixels or 10**9)

    for batch, following in zip(batches, [*batches[1:], None], strict=False):
        assert batch
        assert len(batch) == 1 or fits(batch)
        assert following is None or not fits([*batch, following[0]])  # no remaining image would have fitted


def test_accepted_images_are_sent_unchanged() -> None:
    limits = Limits(1, 1)
    for form in ("PNG", "JPEG", "WEBP"):
        image = noise((40, 30), form)
        assert fit_image(image, limits) is image


@pytest.mark.parametrize("form", ["BMP", "TIFF"])
def test_an_unsupported_format_becomes_png_without_loss(form: str) -> None:
    image = noise((40, 30), form)
    fitted = fit_image(image, Limits(1, 1))
    assert fitted.startswith(b"\x89PNG")
    assert np.array_equal(np.asarray(decode(fitted)), np.asarray(decode(image)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_too_many_pixels_are_scaled_down_to_the_limit(form: str) -> None:
    fitted = fit_image(noise((400, 200), form), Limits(1, 1, image_pixels=20_000))
    assert decode(fitted).size == (200, 100)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_too_many_bytes_are_compressed(form: str) -> None:
    image = noise((300, 300), form, **({"quality": 100} if form == "JPEG" else {}))
    fitted = fit_image(image, Limits(1, 1, image_bytes=20_000))
    assert len(fitted) <= 20_000
    assert min(decode(fitted).size) > 60
    assert np.isclose(decode(fitted).width, decode(fitted).height, atol=1)
    small = Limits(1, 1, request_bytes=20_000)  # the limit of the request applies too, after base64
    assert image_size(fit_image(image, small)).bytes <= 20_000


def test_the_same_image_always_becomes_the_same_bytes() -> None:
    image, limits = noise((300, 300), "PNG"), Limits(1, 1, image_bytes=20_000)
    assert fit_image(image, limits) == fit_image(image, limits)


def test_images_that_cannot_be_sent_are_reported() -> None:
    with pytest.raises(TeacherError):
        fit_image(b"no image", Limits(1, 1))
    with pytest.raises(TeacherError, match="cannot be reduced"):
        fit_image(noise((50, 50), "PNG"), Limits(1, 1, image_bytes=100))


def test_the_size_of_a_text_is_that_of_its_json() -> None:
    assert text_size("aa").bytes - text_size("a").bytes == 1
    assert text_size("é").bytes - text_size("").bytes == 6
    assert text_size("🙂").bytes - text_size("").bytes == 12
