"""Scaled rotary frequencies are those of transformers, and what their papers say."""

import pytest
import torch

from lmexp.models.layers.rotary import Rotary
from lmexp.models.layers.rotary_scaling import RotaryScaling, frequencies

D = 64
CASES = [
    (kind, factor, length, base)
    for kind in ("linear", "llama3", "yarn")
    for factor, length, base in ((8.0, 8192, 500000.0), (32.0, 8192, 500000.0), (2.5, 100, 10000.0), (4.0, 2048, 1e4))
]


@pytest.mark.parametrize(("kind", "factor", "length", "base"), CASES, ids=str)
def test_frequencies_are_those_of_transformers(kind: str, factor: float, length: int, base: float) -> None:
    transformers = pytest.importorskip("transformers")
    rope = pytest.importorskip("transformers.modeling_rope_utils")
    parameters = {"rope_type": kind, "rope_theta": base, "factor": factor}
    if kind != "linear":
        parameters |= {"original_max_position_embeddings": length}
    if kind == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = transformers.LlamaConfig(
        hidden_size=4 * D,
        num_attention_heads=4,
        max_position_embeddings=int(factor * length),
        rope_parameters=parameters,
    )
    expected, attention_factor = rope.ROPE_INIT_FUNCTIONS[kind](config, "cpu")
    ours, multiplied = frequencies(D, base, RotaryScaling(kind, factor, length))
    torch.testing.assert_close(ours.float(), expected, rtol=2e-6, atol=0)
    assert multiplied == pytest.approx(attention_factor, rel=1e-12)
    rotary = Rotary(D, 50, base=base, scaling=RotaryScaling(kind, factor, length))
    torch.testing.assert_close(rotary.cos, (torch.arange(50)[:, None] * expected).cos() * attention_factor)


def test_linear_scaling_gives_a_position_the_angles_of_a_factor_earlier_one() -> None:
    plain = Rotary(D, 10).double()
    stretched = Rotary(D, 40, scaling=RotaryScaling("linear", 4.0, None)).double()
    torch.testing.assert_close(stretched.cos[::4], plain.cos)
    torch.testing.assert_close(stretched.sin[::4], plain.sin)


@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_short_wavelengths_are_kept_and_long_ones_stretched(kind: str) -> None:
    plain, _ = frequencies(D, 500000.0)
    scaled, _ = frequencies(D, 500000.0, RotaryScaling(kind, 8.0, 8192))
    assert torch.equal(scaled[:4], plain[:4])
    torch.testing.assert_close(scaled[-4:], plain[-4:] / 8)
    assert (scaled <= plain).all()
    assert (scaled.diff() < 0).all()


def test_without_scaling_frequencies_are_the_plain_ones() -> None:
    plain, factor = frequencies(D, 10000.0)
    torch.testing.assert_close(plain, 10000.0 ** -(torch.arange(0, D, 2).double() / D), rtol=0, atol=0)
    assert factor == 1.0
