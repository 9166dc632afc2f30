"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from rfdetr.data.synthetic import draw_dataset

# Shapes and types in the signatures of the tensor modules are checked on every call of the suite.
TENSOR_MODULES = (
    "rfdetr.boxes",
    "rfdetr.masks",
    "rfdetr.models",
    "rfdetr.inference.detections",
    "rfdetr.data.annotations",
    "rfdetr.data.colour",
    "rfdetr.data.geometry",
    "rfdetr.data.mixing",
    "rfdetr.data.preprocess",
    "rfdetr.data.scenes",
    "rfdetr.data.segmentations",
    "rfdetr.data.transforms",
    "rfdetr.report.draw",
    "rfdetr.report.samples",
)
install_import_hook(TENSOR_MODULES, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """The folder of oracles and real pictures beside the repository; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared")
    return SHARED


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of eight training images with circles, rectangles, triangles and stars. Not to be changed."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, train_images=8, seed=0)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is kept in the folders of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFDETR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
