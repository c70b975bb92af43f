import pytest

from lmexp.data.config import CustomDataConfig, StdlibConfig, TextFilesConfig
from lmexp.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0; expected at least 1"),
        ({"sequence_length": 0}, "data.sequence_length is 0; expected at least 1"),
        ({"split": "tial"}, "data.split is 'tial'; expected one of hash, tail; did you mean tail?"),
        ({"document": "lines"}, "data.document is 'lines'; expected one of file, line; did you mean line?"),
        ({"validation_fraction": -0.1}, "data.validation_fraction is -0.1; expected a share from 0"),
        ({"test_fraction": 1.0}, "data.test_fraction is 1.0; expected a share from 0"),
        (
            {"validation_fraction": 0.5, "test_fraction": 0.5},
            "data.validation_fraction (0.5) + data.test_fraction (0.5) must be below 1",
        ),
    ],
)
def test_wrong_settings_name_the_option_and_what_is_expected(settings, message) -> None:
    with pytest.raises(ConfigError) as caught:
        TextFilesConfig(**settings)
    assert message in str(caught.value)


def test_unknown_settings_are_refused() -> None:
    config = StdlibConfig()
    with pytest.raises(AttributeError):
        config.batchsize = 3


def test_a_custom_data_module_needs_a_target() -> None:
    with pytest.raises(ConfigError, match=r"data\.target is not set"):
        CustomDataConfig()
