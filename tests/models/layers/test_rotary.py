import pytest
import torch
from torch import Tensor

from lmexp.models.layers.rotary import Rotary, rotate

D, LENGTH = 16, 40


def rotated_everywhere(vector: Tensor) -> Tensor:
    """vector at each of LENGTH positions: (LENGTH, D)."""
    rotation = Rotary(D, LENGTH).double()(LENGTH)
    return rotate(vector.expand(1, 1, LENGTH, D), rotation)[0, 0]


def test_products_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, D, dtype=torch.float64, generator=generator)
    products = rotated_everywhere(query) @ rotated_everywhere(key).T  # (query position, key position)
    for distance in range(LENGTH):
        diagonal = products.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[:, 0].std() > 0.1  # and it does depend on it


def test_rotation_keeps_lengths_and_position_zero() -> None:
    vector = torch.randn(D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    everywhere = rotated_everywhere(vector)
    torch.testing.assert_close(everywhere[0], vector)
    torch.testing.assert_close(everywhere.norm(dim=-1), vector.norm().expand(LENGTH))


def test_pairs_are_llamas() -> None:
    """Hugging Face's form: x * cos + rotate_half(x) * sin with doubled tables."""
    x = torch.randn(2, 3, LENGTH, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frequencies = 1.0 / (500.0 ** (torch.arange(0, D, 2).double() / D))
    angles = torch.arange(LENGTH)[:, None] * frequencies
    doubled = torch.cat((angles, angles), dim=-1)
    half = torch.cat((-x[..., D // 2 :], x[..., : D // 2]), dim=-1)
    expected = x * doubled.cos() + half * doubled.sin()
    torch.testing.assert_close(rotate(x, Rotary(D, LENGTH, base=500.0).double()(LENGTH)), expected)


@pytest.mark.parametrize(("cast", "kept"), [("bfloat16", "float32"), ("half", "float32"), ("double", "float64")])
def test_casting_never_rounds_the_tables(cast: str, kept: str) -> None:
    rotary = getattr(Rotary(D, 5000), cast)()
    assert rotary.cos.dtype == rotary.sin.dtype == getattr(torch, kept)
    exact = torch.arange(5000, dtype=torch.float64)[:, None] * 10000.0 ** -(torch.arange(0, D, 2).double() / D)
    torch.testing.assert_close(
        rotary.sin, exact.sin().to(rotary.sin.dtype), rtol=0, atol=1e-7 if kept == "float32" else 1e-11
    )
    back = rotary.float()
    assert back.cos.dtype == torch.float32
    assert torch.equal(back.sin, exact.sin().float())


def test_bf16_is_rotated_in_fp32() -> None:
    x = torch.randn(1, 1, LENGTH, D, generator=torch.Generator().manual_seed(0)).bfloat16()
    rotation = Rotary(D, LENGTH)(LENGTH)
    rotated = rotate(x, rotation)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, rotate(x.float(), rotation).bfloat16())


def test_tables_stay_out_of_checkpoints() -> None:
    assert not Rotary(D, LENGTH).state_dict()
