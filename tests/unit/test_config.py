"""Settings from the environment."""

import pytest

from leasehold.config import Settings
from leasehold.errors import FieldInvalid


def test_values_are_read_by_their_kind() -> None:
    settings = Settings.from_environment({"LEASEHOLD_COOL_DOWN_S": "1.5", "LEASEHOLD_IPAM_SERVERS": "3", "PATH": "x"})
    assert (settings.cool_down_s, settings.ipam_servers) == (1.5, 3)


@pytest.mark.parametrize("text", ["", "two", "-1", "nan", "inf"])
def test_a_bad_number_is_named(text: str) -> None:
    with pytest.raises(FieldInvalid, match="LEASEHOLD_COOL_DOWN_S"):
        Settings.from_environment({"LEASEHOLD_COOL_DOWN_S": text})


def test_an_unknown_setting_is_refused_and_not_ignored() -> None:
    with pytest.raises(FieldInvalid, match="LEASEHOLD_COOLDOWN is no setting"):
        Settings.from_environment({"LEASEHOLD_COOLDOWN": "5"})
