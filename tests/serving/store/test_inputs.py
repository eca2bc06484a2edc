from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest

from dubio.models import InputSpec
from dubio.serving.store.inputs import Form, encode, read_array, read_instance, read_picture, shrink, to_pixels

IMAGE = InputSpec(kind="image", shape=(1, 8, 8), mean=(0.0,), std=(1.0,), low=0, high=16)
NUMBERS = InputSpec(kind="numbers", shape=(3,), mean=(0.0,) * 3, std=(1.0,) * 3, low=-1, high=1)


@pytest.mark.parametrize("values", [np.arange(64) % 17, np.arange(64) / 7, np.arange(64) * 1e30, -np.arange(64)])
def test_an_input_in_full_is_read_as_it_was(values: np.ndarray) -> None:
    raw = values.astype(np.float32).reshape(1, 8, 8)
    stored = encode(raw, None, IMAGE, "input")
    assert stored.form is Form.ARRAY
    assert stored.content is not None
    np.testing.assert_array_equal(read_array(stored.content), raw)
    assert stored.digest == sha256(raw.astype("<f4").tobytes()).hexdigest()
    assert np.array_equal(read_instance(stored.form, stored.content), raw)


def test_pixels_of_a_byte_take_a_byte() -> None:
    raw = np.arange(3 * 32 * 32, dtype=np.float32).reshape(3, 32, 32) % 256
    content = encode(raw, None, IMAGE, "input").content
    assert content is not None
    assert len(content) <= 3 * 32 * 32 + 128


def test_what_a_caller_sent_is_kept_as_it_was_sent() -> None:
    stored = encode(np.zeros(3, np.float32), b'{"age":30,"city":null}', NUMBERS, "input")
    assert stored.form is Form.JSON
    assert read_instance(stored.form, stored.content) == {"age": 30, "city": None}


@pytest.mark.parametrize("spec", [IMAGE, NUMBERS])
def test_of_a_hash_nothing_can_be_read(spec: InputSpec) -> None:
    stored = encode(np.zeros(spec.shape, np.float32), b'"secret"', spec, "hash")
    assert (stored.form, stored.content) == (Form.HASH, None)
    assert read_instance(stored.form, stored.content) is None
    assert read_picture(stored.form, stored.content, 0, 1) is None


def test_a_thumbnail_is_a_small_picture_and_of_others_there_is_none() -> None:
    tall = InputSpec(kind="image", shape=(3, 128, 64), mean=(0.0,) * 3, std=(1.0,) * 3, low=0, high=255)
    raw = np.full((3, 128, 64), 200, np.float32)
    stored = encode(raw, None, tall, "thumbnail")
    assert stored.form is Form.THUMBNAIL
    pixels = read_picture(stored.form, stored.content, 0, 255)
    assert pixels is not None
    assert pixels.shape == (3, 32, 16)
    assert set(pixels.ravel().tolist()) == {200}
    assert read_instance(stored.form, stored.content) is None
    assert encode(np.zeros(3, np.float32), None, NUMBERS, "thumbnail").form is Form.HASH


def test_low_is_black_and_high_is_white() -> None:
    raw = np.array([[[0.0, 8.0, 16.0, 99.0, -5.0]]], np.float32)
    assert to_pixels(raw, 0, 16).ravel().tolist() == [0, 128, 255, 255, 0]
    assert shrink(raw, 0, 16).tolist() == [[[0, 128, 255, 255, 0]]]
    assert to_pixels(raw, 3, 3).dtype == np.uint8  # a training set of one value
