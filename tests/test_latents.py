"""Noise by seed, and decoding to pixels."""

import torch

from diffusekit import latents
from diffusekit.device import make_generators


def test_noise_belongs_to_its_seed():
    alone = latents.noise((4, 8, 8), make_generators([6]))
    among = latents.noise((4, 8, 8), make_generators([5, 6, 7]))
    assert torch.equal(alone[0], among[1])
    assert abs(among.mean()) < 0.15 and abs(among.std() - 1) < 0.1


def test_decoded_images_are_in_range(mini):
    found = latents.decode(mini, 30 * torch.randn(2, *latents.shape(mini, 128, 64)))
    assert found.shape == (2, 3, 64, 128)
    assert found.min() >= -1 and found.max() <= 1
