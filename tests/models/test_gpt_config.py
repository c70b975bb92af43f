import subprocess
import sys

import pytest

from lmexp.errors import ConfigError
from lmexp.models.config import CustomModelConfig, GPTConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"d_model": 64, "n_head": 5},
            r"model.d_model \(64\) must be divisible by model.n_head \(5\); try model.n_head=4",
        ),
        (
            {"n_head": 8, "n_kv_head": 3},
            r"model.n_head \(8\) .* model.n_kv_head \(3\); try model.n_kv_head=2",
        ),
        ({"d_model": 12, "positions": "rotary"}, r"12 / 4 = 3\) is odd; try model.d_model=16"),
        (
            {"positions": "rotery"},
            "model.positions is 'rotery'; expected one of learned, rotary, alibi; did you mean rotary",
        ),
        ({"norm": "batch"}, "model.norm is 'batch'; expected one of layer_norm, rms_norm"),
        ({"activation": "relu"}, "model.activation is 'relu'; expected one of gelu, gelu_tanh, relu2, swiglu"),
        ({"n_layer": 0}, "model.n_layer is 0; expected at least 1"),
        ({"n_kv_head": 0}, "model.n_kv_head is 0; expected at least 1"),
        ({"d_ff": -1}, "model.d_ff is -1; expected at least 1"),
        ({"dropout": 1.0}, "model.dropout is 1.0; expected a probability"),
        ({"init_std": 0.0}, "model.init_std is 0.0; expected a positive number"),
        ({"norm_eps": 0.0}, "model.norm_eps is 0.0; expected a positive number"),
        (
            {"rotary_factor": 2.0},
            "model.rotary_factor is 2.0, but nothing reads it with model.rotary_scaling=none",
        ),
        (
            {"positions": "rotary", "rotary_scaling": "linear", "rotary_factor": 2.0, "rotary_original_length": 8},
            "model.rotary_original_length is 8, but nothing reads it with model.rotary_scaling=linear",
        ),
        (
            {"rotary_scaling": "linear", "rotary_factor": 2.0},
            "model.rotary_scaling is linear, but model.positions is learned; set model.positions=rotary",
        ),
        (
            {"positions": "rotary", "rotary_scaling": "linear"},
            "does nothing with model.rotary_factor=1; set .* e.g. model.rotary_factor=4",
        ),
        (
            {"positions": "rotary", "rotary_scaling": "yarn", "rotary_factor": 2.0},
            "model.rotary_scaling=yarn needs .* set model.rotary_original_length",
        ),
        (
            {"positions": "rotary", "rotary_scaling": "linear", "rotary_factor": 2.0, "rotary_base": 1.0},
            "model.rotary_base is 1.0; expected more than 1",
        ),
        ({"rotary_factor": 0.5}, "model.rotary_factor is 0.5; expected at least 1"),
        ({"rotary_base": float("nan")}, "model.rotary_base is nan; expected a positive number"),
    ],
)
def test_bad_settings_say_where_what_and_how_to_fix(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GPTConfig(**settings)  # type: ignore[arg-type]


def test_what_the_error_suggests_is_accepted() -> None:
    GPTConfig(d_model=64, n_head=4)
    GPTConfig(n_head=8, n_kv_head=2)
    GPTConfig(d_model=16, positions="rotary")


@pytest.mark.parametrize(("d_model", "width"), [(128, 352), (96, 256), (4096, 10944)])
def test_swiglu_is_as_wide_as_gelu_costs(d_model: int, width: int) -> None:
    assert GPTConfig(d_model=d_model, activation="swiglu").feed_forward_width == width
    assert 0 <= 3 * width - 8 * d_model < 3 * 32


def test_a_custom_model_needs_a_target() -> None:
    with pytest.raises(ConfigError, match=r"model\.target is not set"):
        CustomModelConfig()


def test_configs_import_no_torch() -> None:
    code = (
        "import sys, lmexp.models.config, lmexp.optim.config, lmexp.optim.schedulers.config as schedulers;"
        "schedulers.CosineConfig().multiplier(0, 10);"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
