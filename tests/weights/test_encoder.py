import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from rfdetr.errors import WeightsError
from rfdetr.models.detector import Detector
from rfdetr.weights.encoder import load_encoder, resize_patches
from rfdetr.weights.names import to_published
from rfdetr.weights.state_dict import PATCHES, POSITIONS
from tests.tiny import TINY

Weights = dict[str, Tensor]
WIDTH, DEPTH = TINY.encoder_width, TINY.encoder_depth
GRID = TINY.positional_encoding_size


def layer(width: int) -> Weights:
    attention = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    linear = dict.fromkeys((*attention, "attention.output.dense"), (width, width))
    linear.update({"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)})
    found = {f"{name}.weight": torch.randn(shape) for name, shape in linear.items()}
    found.update({f"{name}.bias": torch.randn(shape[0]) for name, shape in linear.items()})
    found.update({f"layer_scale{i}.lambda1": torch.rand(width) for i in (1, 2)})
    found.update({f"norm{i}.{kind}": torch.randn(width) for i in (1, 2) for kind in ("weight", "bias")})
    return found


def dinov2(patch_size: int = TINY.patch_size, grid: int = GRID, width: int = WIDTH, depth: int = DEPTH) -> Weights:
    """Random weights in the layout of Hugging Face's Dinov2Model."""
    torch.manual_seed(0)
    return {
        "embeddings.cls_token": torch.randn(1, 1, width),
        "embeddings.mask_token": torch.randn(1, width),
        "embeddings.position_embeddings": torch.randn(1, 1 + grid**2, width),
        "embeddings.patch_embeddings.projection.weight": torch.randn(width, 3, patch_size, patch_size),
        "embeddings.patch_embeddings.projection.bias": torch.randn(width),
        **{f"encoder.layer.{i}.{name}": tensor for i in range(depth) for name, tensor in layer(width).items()},
        "layernorm.weight": torch.randn(width),
        "layernorm.bias": torch.randn(width),
    }


def load(weights: Weights, folder: Path, patch_size: int = TINY.patch_size) -> tuple[Detector, list[str]]:
    """A detector with these weights, given as a folder of Hugging Face."""
    save_file(weights, folder / "model.safetensors")
    resolution = 8 * patch_size
    detector = Detector(TINY.replace(patch_size=patch_size, resolution=resolution))
    return detector, load_encoder(detector, folder)


def test_pictures_of_one_channel_get_the_filters_of_all_together(tmp_path: Path) -> None:
    weights = dinov2()
    save_file(weights, tmp_path / "model.safetensors")
    detector = Detector(TINY.replace(num_channels=1))
    assert load_encoder(detector, tmp_path) == ["patch projection: 3 -> 1 channels, each the mean of its filters"]
    filters = weights["embeddings.patch_embeddings.projection.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(detector.state_dict()[PATCHES], filters)


def test_every_weight_of_the_vit_is_loaded_and_no_other_is_touched(tmp_path: Path) -> None:
    weights = dinov2()
    detector, report = load(weights, tmp_path)
    assert report == []
    state, initial = to_published(detector.state_dict()), to_published(Detector(TINY).state_dict())
    prefix = "backbone.0.encoder.encoder."
    assert {name.removeprefix(prefix) for name in state if name.startswith(prefix)} == weights.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, weights.get(name.removeprefix(prefix), initial[name])), name


@pytest.mark.parametrize(
    ("change", "report"),
    [
        pytest.param(lambda w: w, [], id="as it is"),
        pytest.param(
            lambda w: {**{f"dinov2.{name}": tensor for name, tensor in w.items()}, "classifier.bias": torch.ones(2)},
            ["left out, not part of the model: classifier.bias"],
            id="of a classifier",
        ),
        pytest.param(
            lambda w: (
                {f"dinov2_with_registers.{name}": tensor for name, tensor in w.items()}
                | {"dinov2_with_registers.embeddings.register_tokens": torch.ones(1, 4, WIDTH)}
            ),
            ["register tokens: left out, the model has none"],
            id="with registers",
        ),
        pytest.param(
            lambda w: {name: tensor for name, tensor in w.items() if "mask_token" not in name}, [], id="no mask token"
        ),
        pytest.param(lambda w: {name: tensor.half() for name, tensor in w.items()}, [], id="half precision"),
    ],
)
def test_what_files_may_have_beside_the_vit(
    tmp_path: Path, change: Callable[[Weights], Weights], report: list[str]
) -> None:
    weights = dinov2()
    detector, said = load(change(weights), tmp_path)
    assert said == report
    expected = weights["encoder.layer.3.mlp.fc1.weight"]
    assert torch.allclose(detector.state_dict()["backbone.vit.blocks.3.mlp.fc1.weight"], expected, atol=2e-3)


@pytest.mark.parametrize("patch_size", [12, 14, 16])
def test_patches_of_14_and_their_grid_are_resized(tmp_path: Path, patch_size: int) -> None:
    weights = dinov2(patch_size=14, grid=37)
    detector, report = load(weights, tmp_path, patch_size)
    resized = [f"patch projection: 14x14 -> {patch_size}x{patch_size}, resized"] if patch_size != 14 else []
    assert report == [*resized, "position embeddings: 37x37 -> 8x8, interpolated"]
    state = detector.state_dict()
    kernel, positions = (
        weights["embeddings.patch_embeddings.projection.weight"],
        weights["embeddings.position_embeddings"],
    )
    assert torch.equal(state[PATCHES], kernel if patch_size == 14 else resize_patches(kernel, patch_size))
    assert torch.equal(state[POSITIONS][:, 0], positions[:, 0])
    grid = positions[:, 1:].view(1, 37, 37, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (8, 8), mode="bicubic", antialias=True).permute(0, 2, 3, 1).reshape(1, 64, -1)
    assert torch.allclose(state[POSITIONS][:, 1:], expected, atol=1e-6)
    with torch.inference_mode():
        outputs = detector(torch.randn(1, 3, 8 * patch_size, 8 * patch_size))
    assert outputs["pred_boxes"].isfinite().all()


def tokens(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(image, kernel, stride=kernel.shape[-1])


def test_an_enlarged_patch_gets_the_very_token_it_had() -> None:
    torch.manual_seed(0)
    kernel, patch = torch.randn(5, 3, 14, 14), torch.randn(2, 3, 14, 14)
    larger = F.interpolate(patch, (16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(tokens(larger, resize_patches(kernel, 16)), tokens(patch, kernel), atol=1e-3)


def test_tokens_of_a_shrunken_picture_come_near_to_those_of_the_picture() -> None:
    """And nearer than with a kernel that is shrunken like a picture."""
    torch.manual_seed(0)
    x, y = torch.meshgrid(torch.arange(8 * 14), torch.arange(8 * 14), indexing="ij")
    picture = torch.stack([torch.sin(x / 9), torch.cos(y / 11), torch.sin((x + y) / 17)]).unsqueeze(0)
    kernel = torch.randn(16, 3, 14, 14)
    smaller = F.interpolate(picture, (8 * 12, 8 * 12), mode="bilinear", align_corners=False, antialias=True)
    expected = tokens(picture, kernel)

    def error(shrunken: Tensor) -> float:
        return float((tokens(smaller, shrunken) - expected).norm() / expected.norm())

    naive = F.interpolate(kernel, (12, 12), mode="bilinear", antialias=True)
    assert error(resize_patches(kernel, 12)) < 0.15
    assert error(naive) > 2 * error(resize_patches(kernel, 12))


def test_a_constant_picture_has_the_same_tokens_at_any_size() -> None:
    kernel = torch.rand(4, 3, 14, 14)
    for size in (12, 16):
        found = tokens(torch.ones(1, 3, size, size), resize_patches(kernel, size)).flatten()
        assert torch.allclose(found, kernel.sum(dim=(1, 2, 3)), rtol=1e-2), size


def swiglu(weights: Weights) -> Weights:
    kept = {name: tensor for name, tensor in weights.items() if ".mlp." not in name}
    return {**kept, **{f"encoder.layer.{i}.mlp.weights_in.weight": torch.ones(2) for i in range(DEPTH)}}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        pytest.param(
            dinov2(width=48), "encoder width: 48 (none) in the file, 24 (none) in the model", id="another width"
        ),
        pytest.param(dinov2(depth=6), "encoder depth: 6 blocks in the file, 4 in the model", id="another depth"),
        pytest.param(swiglu(dinov2()), "a DINOv2 with SwiGLU (giant); this model's ViT has none", id="giant"),
        pytest.param(
            {"blocks.0.attn.qkv.weight": torch.ones(3)},
            "not DINOv2 weights in the layout of Hugging Face (embeddings.*, encoder.layer.*, layernorm.*)",
            id="another layout",
        ),
        pytest.param(
            {name: tensor for name, tensor in dinov2().items() if name != "layernorm.bias"},
            "the weights are of another architecture:\n  missing: backbone.vit.norm.bias",
            id="one is missing",
        ),
        pytest.param(
            {**dinov2(), "encoder.layer.0.attention.attention.key.weight": torch.ones(3, 3)},
            "Sizes of tensors must match except in dimension 0. Expected size 24 but got size 3 for tensor number 1 "
            "in the list.",
            id="parts that do not go together",
        ),
        pytest.param(
            {**dinov2(), "embeddings.patch_embeddings.projection.weight": torch.ones(24, 3, 8, 9)},
            "its patch projection is of shape [24, 3, 8, 9]",
            id="patches that are no squares",
        ),
        pytest.param(
            {**dinov2(), "embeddings.position_embeddings": torch.ones(3)},
            f"the weights are of another architecture:\n  {POSITIONS}: shape [3], this model has [1, 65, 24]",
            id="positions that are no grid",
        ),
        pytest.param(
            {**dinov2(), "layernorm.bias": torch.full((WIDTH,), math.nan)},
            "holds numbers that are not finite, in layernorm.bias; its training diverged",
            id="not finite",
        ),
    ],
)
def test_another_vit_is_refused_before_anything_is_loaded(tmp_path: Path, weights: Weights, message: str) -> None:
    save_file(weights, tmp_path / "dino.safetensors")
    detector = Detector(TINY)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_encoder(detector, tmp_path / "dino.safetensors")
    assert str(caught.value) == f"encoder_weights: {tmp_path / 'dino.safetensors'}: {message}"
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "no model.safetensors in this folder"),
        ("missing.safetensors", "no such file"),
        ("text.safetensors", "is a text file, not weights"),
        ("list.pth", "not a .safetensors file, nor a folder with a model.safetensors"),
    ],
)
def test_a_path_without_weights(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "text.safetensors").write_text("not weights")
    torch.save({"model": [1]}, tmp_path / "list.pth")
    with pytest.raises(WeightsError) as caught:
        load_encoder(Detector(TINY), tmp_path / name)
    assert str(caught.value) == f"encoder_weights: {tmp_path / name}: {message}"
