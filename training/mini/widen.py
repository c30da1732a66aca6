"""Latents with more channels: the networks around them begin where they were, and have room for what was not told.

The first channels keep their meaning. The U-Net hears and says nothing of the new ones until it learns to; the
decoder hears them faintly, so that the encoder has something to learn from.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

_FAINT = 0.1  # of a new layer's usual weights
_NARROW = -4.0  # log-variance of a new channel at first


@torch.no_grad()
def widen_vae(vae: AutoencoderKL, channels: int) -> AutoencoderKL:
    """A copy of `vae` with so many latent channels; what it makes of the old ones is nearly what it was."""
    had = vae.config.latent_channels
    wide = AutoencoderKL.from_config(vae.config, latent_channels=channels).to(vae.device)
    into, old_into = wide.encoder.conv_out, vae.encoder.conv_out
    inside, old_inside = wide.quant_conv, vae.quant_conv
    outside, old_outside = wide.post_quant_conv, vae.post_quant_conv
    out, old_out = wide.decoder.conv_in, vae.decoder.conv_in
    own = {"encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in"}
    same = {n: p for n, p in vae.state_dict().items() if n.rpartition(".")[0] not in own}
    wide.load_state_dict(same, strict=False)

    into.weight[: 2 * had], into.bias[: 2 * had] = old_into.weight, old_into.bias
    _clear(inside)
    for old, new in ((0, 0), (had, channels)):  # means, then log-variances
        inside.weight[new : new + had, : 2 * had] = old_inside.weight[old : old + had]
        inside.bias[new : new + had] = old_inside.bias[old : old + had]
    for extra in range(channels - had):
        inside.weight[had + extra, 2 * had + extra] = 1.0
    inside.bias[channels + had :] = _NARROW
    _clear(outside)
    outside.weight[:had, :had], outside.bias[:had] = old_outside.weight, old_outside.bias
    for extra in range(had, channels):
        outside.weight[extra, extra] = 1.0
    out.weight[:, had:] *= _FAINT
    out.weight[:, :had], out.bias[:] = old_out.weight, old_out.bias
    return wide.train(vae.training)


@torch.no_grad()
def widen_unet(net: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """A copy of `net` for so many latent channels; it predicts the old ones as before, and of the new ones zero."""
    had = net.config.in_channels
    sizes = {"in_channels": channels, "out_channels": channels}
    wide = UNet2DConditionModel.from_config(net.config, **sizes).to(net.device)
    ends = {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    same = {n: p for n, p in net.state_dict().items() if n not in ends}
    wide.load_state_dict(same, strict=False)
    wide.conv_in.weight.zero_()
    wide.conv_in.weight[:, :had] = net.conv_in.weight
    _clear(wide.conv_out)
    wide.conv_out.weight[:had], wide.conv_out.bias[:had] = net.conv_out.weight, net.conv_out.bias
    return wide.train(net.training)


def _clear(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
