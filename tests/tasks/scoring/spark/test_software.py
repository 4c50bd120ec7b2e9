"""The comparison of the software of driver and executors."""

from __future__ import annotations

import pytest

from models.errors import ClusterError
from tasks.scoring.spark.software import describe_software, require_same_software


def test_the_same_software_is_accepted() -> None:
    require_same_software(dict(describe_software()))


@pytest.mark.parametrize("package", ["spamscore (hash of its modules)", "Python", "tensorflow", "numpy"])
def test_another_version_is_refused_and_both_are_named(package: str) -> None:
    ours = describe_software()[package]
    with pytest.raises(ClusterError, match="its software differs") as raised:
        require_same_software({**describe_software(), package: "0.0"})
    assert f"{package}: expected 0.0 as on the driver, received {ours}. Install" in str(raised.value)
