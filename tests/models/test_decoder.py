import pytest
import torch
from torch import nn

from rfdetr.models.decoder import GroupSelfAttention
from rfdetr.models.detector import Detector
from rfdetr.models.memory import Memory
from tests.tiny import TINY

DIM, HEADS = 16, 4


@pytest.fixture
def attention() -> GroupSelfAttention:
    torch.manual_seed(0)
    module = GroupSelfAttention(DIM, HEADS)
    nn.init.normal_(module.in_proj_weight)
    nn.init.normal_(module.in_proj_bias)
    return module


@torch.no_grad()
def test_self_attention_is_that_of_torch(attention: GroupSelfAttention) -> None:
    reference = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    reference.load_state_dict(attention.state_dict())
    x, position = torch.randn(2, 5, DIM), torch.randn(2, 5, DIM)
    expected, _ = reference(x + position, x + position, x, need_weights=False)
    assert torch.allclose(attention(x, position, groups=1), expected, atol=1e-5)


@torch.no_grad()
def test_each_group_attends_as_if_it_were_alone(attention: GroupSelfAttention) -> None:
    x, position = torch.randn(2, 12, DIM), torch.randn(2, 12, DIM)
    together = attention(x, position, groups=3)
    for group in range(3):
        own = slice(4 * group, 4 * group + 4)
        alone = attention(x[:, own], position[:, own], groups=1)
        assert torch.allclose(together[:, own], alone, atol=1e-6)


@torch.no_grad()
def test_states_of_every_layer_are_normed() -> None:
    decoder = Detector(TINY).transformer.decoder
    memory = Memory.from_levels([torch.randn(2, TINY.hidden_dim, 4, 4)], None)
    hs = decoder(torch.randn(2, 6, TINY.hidden_dim), torch.rand(2, 6, 4), memory, groups=1)
    assert len(hs) == TINY.dec_layers
    for states in hs:
        assert torch.allclose(states.mean(dim=-1), torch.zeros(2, 6), atol=1e-5)
        assert torch.allclose(states.std(dim=-1, correction=0), torch.ones(2, 6), atol=1e-3)
