"""Damage to pictures: the same picture, worse, at any size."""

import numpy as np
import pytest

from tvilfm_plugin.analysis.picture_noise import DAMAGES


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_picture_is_another_of_the_same_kind(name):
    picture = np.random.RandomState(0).randint(0, 256, (40, 20, 3), dtype=np.uint8)
    before = picture.copy()
    worse = DAMAGES[name](picture)
    assert worse.shape == picture.shape and worse.dtype == np.uint8 and (worse != picture).mean() > 0.3
    np.testing.assert_array_equal(picture, before)


def test_what_each_damage_does():
    picture = np.random.RandomState(0).randint(0, 256, (40, 20, 3), dtype=np.uint8)
    assert DAMAGES["blurred"](picture).std() < 0.8 * picture.std() and DAMAGES["dark"](picture).max() <= 51
    hidden = DAMAGES["occluded"](picture)
    assert (hidden[20:] == 128).all() and (hidden[:20] == picture[:20]).all()
