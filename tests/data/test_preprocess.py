import numpy as np
import pytest
import torch

from rfdetr.data.preprocess import MEAN, STD, normalize, squeezed, to_pixels, to_tensor
from tests.oracles import picture, read_json, read_tensors, stats


@pytest.mark.parametrize("number", [0, 1, 2])
def test_evaluation_squeezes_as_the_reference_does(number: int) -> None:
    rule = read_json("oracles/pipeline.json")[f"predict{number}"]
    expected = read_tensors("oracles/pipeline.safetensors")
    seen = normalize(squeezed(picture(rule["seed"], *rule["hw"]), 384))
    torch.testing.assert_close(seen[:, ::24, ::24], expected[f"val{number}.input_sub"], rtol=0, atol=1e-5)
    torch.testing.assert_close(stats(seen), expected[f"val{number}.input_stats"], rtol=1e-5, atol=1e-6)


def test_black_and_white() -> None:
    pixels = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    assert to_tensor(pixels).tolist() == [[[0, 1]], [[0, 1]], [[0, 1]]]


def test_normalisation_is_by_channel_for_one_image_or_many() -> None:
    mean = torch.tensor(MEAN).view(3, 1, 1).expand(3, 4, 5)
    assert normalize(mean).abs().max() == 0
    above = (mean + torch.tensor(STD).view(3, 1, 1)).expand(2, 3, 4, 5)
    torch.testing.assert_close(normalize(above), torch.ones(2, 3, 4, 5))


@pytest.mark.parametrize("num_channels", [1, 2, 4, 7])
def test_other_numbers_of_channels_take_the_statistics_in_turn(num_channels: int) -> None:
    mean = torch.tensor([MEAN[channel % 3] for channel in range(num_channels)]).view(-1, 1, 1)
    std = torch.tensor([STD[channel % 3] for channel in range(num_channels)]).view(-1, 1, 1)
    torch.testing.assert_close(normalize((mean + std).expand(-1, 4, 5)), torch.ones(num_channels, 4, 5))


def test_every_bit_reaches_the_numbers() -> None:
    """Those of bytes are exactly what a division by 255 gives; those of 16 bits are all different."""
    bytes_ = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    expected = (bytes_.float() / 255 - torch.tensor(MEAN[0])) / torch.tensor(STD[0])
    assert normalize(bytes_).equal(expected)
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    numbers = to_tensor(deep)
    assert [numbers.min().item(), numbers.max().item(), len(numbers.unique())] == [0, 1, 65536]
    assert len(normalize(to_pixels(deep)).unique()) > 65000
    assert normalize(squeezed(deep, 256)).equal(normalize(numbers))
    assert to_tensor(numbers.permute(1, 2, 0).numpy()).equal(numbers)


def test_evaluation_shrinks_with_antialiasing() -> None:
    """Every fourth row is white: their mean is grey."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[::4] = 255
    grey = normalize(torch.full((3, 1, 1), 0.25))
    inner = normalize(squeezed(pixels, 16))[:, 1:-1]
    torch.testing.assert_close(inner, grey.expand_as(inner), rtol=0, atol=0.3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_the_same() -> None:
    for kind in (np.uint8, np.uint16):
        pixels = to_pixels(np.random.default_rng(0).integers(0, 256, (50, 70, 4)).astype(kind))
        torch.testing.assert_close(normalize(pixels.cuda()).cpu(), normalize(pixels), rtol=0, atol=1e-5)
