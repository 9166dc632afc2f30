import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.oracles import picture as oracle_picture
from tests.oracles import read_json, read_tensors, stats
from torch import Tensor

from rfdetr.data.channels import Pixels
from rfdetr.data.preprocess import normalize
from rfdetr.inference.resizing import for_prediction


@pytest.mark.parametrize("number", [0, 1, 2])
def test_it_is_what_the_reference_sees(number: int) -> None:
    rule = read_json("oracles/pipeline.json")[f"predict{number}"]
    expected = read_tensors("oracles/pipeline.safetensors")
    seen = for_prediction(oracle_picture(rule["seed"], *rule["hw"]), 384)
    torch.testing.assert_close(seen[:, ::24, ::24], expected[f"predict{number}.input_sub"], rtol=0, atol=1e-5)
    torch.testing.assert_close(stats(seen), expected[f"predict{number}.input_stats"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "size_hw",
    [(480, 640), (700, 900), (333, 517), (1500, 2000), (384, 384), (100, 200), (385, 20), (1, 1), (2, 3000)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("resolution", [312, 384])
def test_it_is_the_interpolation_of_torch(size_hw: tuple[int, int], resolution: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    found = for_prediction(picture, resolution)
    assert found.is_contiguous()
    torch.testing.assert_close(found, by_torch(picture, resolution), rtol=0, atol=2e-6)


def by_torch(picture: Pixels, resolution: int) -> Tensor:
    whole = torch.from_numpy(picture).permute(2, 0, 1).float().div(255)
    size = (resolution, resolution)
    return normalize(F.interpolate(whole[None], size, mode="bilinear", align_corners=False, antialias=False)[0])


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_channels_are_normalised_as_for_training(channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, channels), dtype=np.uint8)
    torch.testing.assert_close(for_prediction(picture, 32), by_torch(picture, 32), rtol=0, atol=2e-6)


def test_it_shrinks_without_antialiasing() -> None:
    """Every fourth row is white, and none between the rows that are sampled."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[::4] = 255
    black = normalize(torch.zeros(3, 1, 1)).expand(3, 16, 16)
    torch.testing.assert_close(for_prediction(pixels, 16), black, rtol=0, atol=2e-6)


def test_the_types_of_pixels_are_the_same_numbers() -> None:
    eight_bits = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    expected = for_prediction(eight_bits, 32)
    for same in (eight_bits.astype(np.uint16) * 257, eight_bits.astype(np.float32) / 255):
        torch.testing.assert_close(for_prediction(same, 32), expected, rtol=0, atol=2e-6)


def test_the_picture_may_lie_in_memory_in_any_way_and_stays_as_it_is() -> None:
    picture = np.random.default_rng(0).random((40, 30, 3), dtype=np.float32)
    turned = np.ascontiguousarray(picture.transpose(2, 1, 0)[:, ::-1])[:, ::-1].transpose(2, 1, 0)
    turned.flags.writeable = False
    torch.testing.assert_close(for_prediction(turned, 64), for_prediction(picture, 64), rtol=0, atol=0)
