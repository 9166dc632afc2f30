"""Our parameter names and the published ones, both ways.

Transformer and heads carry the published names. The backbone has plain names here, and one projection for query, key
and value where the published weights have three.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_LAYER = "backbone.0.encoder.encoder.encoder.layer"

# (ours, published); # is a number, * the rest of the name. The first row that fits counts.
RENAMES = (
    ("backbone.vit.blocks.#.attn.proj.*", f"{_LAYER}.#.attention.output.dense.*"),
    ("backbone.vit.blocks.#.scale1", f"{_LAYER}.#.layer_scale1.lambda1"),
    ("backbone.vit.blocks.#.scale2", f"{_LAYER}.#.layer_scale2.lambda1"),
    ("backbone.vit.blocks.#.*", f"{_LAYER}.#.*"),
    ("backbone.vit.embeddings.projection.*", "backbone.0.encoder.encoder.embeddings.patch_embeddings.projection.*"),
    ("backbone.vit.embeddings.*", "backbone.0.encoder.encoder.embeddings.*"),
    ("backbone.vit.norm.*", "backbone.0.encoder.encoder.layernorm.*"),
    ("backbone.projector.*", "backbone.0.projector.*"),
)
_FUSED = re.compile(r"backbone\.vit\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_PARTS = re.compile(re.escape(_LAYER) + r"\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)")
_QKV = ("query", "key", "value")


def _rule(source: str, target: str) -> tuple[re.Pattern[str], str]:
    pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
    wildcards = iter(range(1, 3))
    return re.compile(pattern), re.sub(r"[#*]", lambda _: rf"\g<{next(wildcards)}>", target)


_TO_PUBLISHED = [_rule(ours, published) for ours, published in RENAMES]
_FROM_PUBLISHED = [_rule(published, ours) for ours, published in RENAMES]


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        if match := pattern.fullmatch(name):
            return match.expand(target)
    return name


def published_names(name: str) -> list[str]:
    """The published names of one of our parameters: three for a fused projection, else one."""
    if match := _FUSED.fullmatch(name):
        return [f"{_LAYER}.{match[1]}.attention.attention.{part}.{match[2]}" for part in _QKV]
    return [_rename(name, _TO_PUBLISHED)]


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the published names."""
    published: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = published_names(name)
        published.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True))
    return published


def from_published(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under our names. An incomplete triple stays under its published names."""
    state: dict[str, Tensor] = {}
    for name, tensor in published.items():
        if match := _PARTS.fullmatch(name):
            block, part, kind = match.groups()
            ours = f"backbone.vit.blocks.{block}.attn.qkv.{kind}"
            triple = published_names(ours)
            if not all(other in published for other in triple):
                state[name] = tensor
            elif part == "query":
                state[ours] = torch.cat([published[other] for other in triple])
        else:
            state[_rename(name, _FROM_PUBLISHED)] = tensor
    return state
