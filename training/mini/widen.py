"""Add latent channels to a trained VAE and U-Net without changing their output.

The first channels keep their meaning. The U-Net ignores the new channels and predicts zero for them until it is
trained. The decoder reads them with small weights, so that the encoder gets a gradient for them.
"""

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

_NEW_WEIGHT_SCALE = 0.1  # of the usual initial weights
_NEW_LOG_VARIANCE = -4.0  # of a new channel, before training


@torch.no_grad()
def widen_vae(vae: AutoencoderKL, channels: int) -> AutoencoderKL:
    """Return a copy of `vae` with `channels` latent channels. It encodes and decodes the old ones as before."""
    old_channels = vae.config.latent_channels
    wide = AutoencoderKL.from_config(vae.config, latent_channels=channels).to(vae.device)
    into, old_into = wide.encoder.conv_out, vae.encoder.conv_out
    inside, old_inside = wide.quant_conv, vae.quant_conv
    outside, old_outside = wide.post_quant_conv, vae.post_quant_conv
    out, old_out = wide.decoder.conv_in, vae.decoder.conv_in
    own = {"encoder.conv_out", "quant_conv", "post_quant_conv", "decoder.conv_in"}
    same = {n: p for n, p in vae.state_dict().items() if n.rpartition(".")[0] not in own}
    wide.load_state_dict(same, strict=False)

    into.weight[: 2 * old_channels], into.bias[: 2 * old_channels] = old_into.weight, old_into.bias
    _set_zero(inside)
    for old, new in ((0, 0), (old_channels, channels)):  # means, then log-variances
        inside.weight[new : new + old_channels, : 2 * old_channels] = old_inside.weight[old : old + old_channels]
        inside.bias[new : new + old_channels] = old_inside.bias[old : old + old_channels]
    for extra in range(channels - old_channels):
        inside.weight[old_channels + extra, 2 * old_channels + extra] = 1.0
    inside.bias[channels + old_channels :] = _NEW_LOG_VARIANCE
    _set_zero(outside)
    outside.weight[:old_channels, :old_channels], outside.bias[:old_channels] = old_outside.weight, old_outside.bias
    for extra in range(old_channels, channels):
        outside.weight[extra, extra] = 1.0
    out.weight[:, old_channels:] *= _NEW_WEIGHT_SCALE
    out.weight[:, :old_channels], out.bias[:] = old_out.weight, old_out.bias
    return wide.train(vae.training)


@torch.no_grad()
def widen_unet(net: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """Return a copy of `net` for `channels` latent channels. It predicts zero for the new ones."""
    old_channels = net.config.in_channels
    sizes = {"in_channels": channels, "out_channels": channels}
    wide = UNet2DConditionModel.from_config(net.config, **sizes).to(net.device)
    ends = {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    same = {n: p for n, p in net.state_dict().items() if n not in ends}
    wide.load_state_dict(same, strict=False)
    wide.conv_in.weight.zero_()
    wide.conv_in.weight[:, :old_channels] = net.conv_in.weight
    _set_zero(wide.conv_out)
    wide.conv_out.weight[:old_channels], wide.conv_out.bias[:old_channels] = net.conv_out.weight, net.conv_out.bias
    return wide.train(net.training)


def _set_zero(layer: nn.Conv2d) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
