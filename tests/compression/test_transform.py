"""From carries to latents and back."""

import pytest
import torch

from xpi_ray.compression.transform import LATENTS, Transform, latent_shape


@pytest.mark.parametrize("size", [(8, 8), (5, 3), (1, 1), (7, 2)])
def test_any_height_and_width_comes_back(size):
    """Latents have half of it, rounded up, and the carry is as large as before."""
    transform = Transform(6).eval()
    carry = torch.randn(2, 6, *size)
    latents = transform.analyse(carry)
    assert latents.shape[1:] == latent_shape((6, *size))
    assert latents.shape[1] == LATENTS
    assert transform.synthesise(latents, size).shape == carry.shape


def test_scale_and_place_of_channels_do_not_matter():
    """Latents of carries whose channels are stretched and shifted are the same."""
    torch.manual_seed(0)
    transform, carry = Transform(4), torch.randn(50, 4, 8, 8)
    stretch = torch.tensor([0.5, 1.0, 2.0, 3.0])[:, None, None]
    shift = torch.tensor([-1.0, 0.0, 4.0, 9.0])[:, None, None]
    plain = transform.normalise(carry).analyse(carry)
    other = transform.normalise(carry * stretch + shift).analyse(carry * stretch + shift)
    torch.testing.assert_close(other, plain, atol=1e-4, rtol=1e-3)


def test_a_dead_channel_does_no_harm():
    """One that never changes is not divided by zero, nor are carries that are all the same."""
    carry = torch.randn(10, 3, 4, 4)
    carry[:, 1] = 2.0
    transform = Transform(3)
    assert transform.normalise(carry).analyse(carry).isfinite().all()
    constant = torch.ones(10, 3, 4, 4)
    assert transform.normalise(constant).analyse(constant).isfinite().all()
