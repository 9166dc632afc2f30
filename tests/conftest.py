"""What all tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of oracles and real pictures beside the repository; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared")
    return SHARED
