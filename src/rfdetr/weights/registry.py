"""The published weight files. All are under Apache-2.0."""

import os
from dataclasses import dataclass
from pathlib import Path

from rfdetr.config.base import suggestion
from rfdetr.errors import WeightsError

BASE_ADDRESS = "https://storage.googleapis.com/rfdetr"


@dataclass(frozen=True)
class PublishedFile:
    """A weight file: `name` on the user's disk, `path` below the address it comes from."""

    name: str
    path: str
    md5: str
    size: str


# The first file of a size is its default.
_FILES = (
    PublishedFile(
        "rf-detr-nano.pth", "nano_coco/checkpoint_best_regular.pth", "fb6504cce7fbdc783f7a46991f07639f", "nano"
    ),
    PublishedFile(
        "rf-detr-small.pth", "small_coco/checkpoint_best_regular.pth", "fb37061c1af7bace359c91b723a8d5c1", "small"
    ),
    PublishedFile(
        "rf-detr-medium.pth", "medium_coco/checkpoint_best_regular.pth", "7223f764a87b863f02eb8d52bf0ce2ee", "medium"
    ),
    PublishedFile("rf-detr-large-2026.pth", "rf-detr-large-2026.pth", "5cb72153541cbcb9aa6efa26222acc75", "large"),
    PublishedFile("rf-detr-base.pth", "rf-detr-base-coco.pth", "b4d3ce46099eaed50626ede388caf979", "base"),
    PublishedFile("rf-detr-base-2.pth", "rf-detr-base-2.pth", "462f4d9df407ddc1812f42614040e913", "base"),
    PublishedFile(
        "rf-detr-base-o365.pth",
        "top-secret-1234/lwdetr_dinov2_small_o365_checkpoint.pth",
        "d93f4921ccbb0f0a2e4364bed290892b",
        "base",
    ),
    PublishedFile("rf-detr-large.pth", "rf-detr-large.pth", "992c8e862aa733a7bb2777e45d49f1a0", "large-deprecated"),
    PublishedFile(
        "rf-detr-seg-preview.pt", "rf-detr-seg-preview.pt", "e35820c28fb86080558123e47a5e49ca", "seg-preview"
    ),
    PublishedFile("rf-detr-seg-nano.pt", "rf-detr-seg-n-ft.pth", "9995497791d0ff1664a1d9ddee9cfd20", "seg-nano"),
    PublishedFile("rf-detr-seg-small.pt", "rf-detr-seg-s-ft.pth", "0a2a3006381d0c42853907e700eadd08", "seg-small"),
    PublishedFile("rf-detr-seg-medium.pt", "rf-detr-seg-m-ft.pth", "a49af1562c3719227ad43d0ca53b4c7a", "seg-medium"),
    PublishedFile("rf-detr-seg-large.pt", "rf-detr-seg-l-ft.pth", "275f7b094909544ed2841c94a677d07e", "seg-large"),
    PublishedFile("rf-detr-seg-xlarge.pt", "rf-detr-seg-xl-ft.pth", "3693b35d0eea86ebb3e0444f4a611fba", "seg-xlarge"),
    PublishedFile(
        "rf-detr-seg-xxlarge.pt", "rf-detr-seg-2xl-ft.pth", "040bc3412af840fa8a47e0ff69b552ba", "seg-2xlarge"
    ),
)

PUBLISHED = {file.name: file for file in _FILES}

_DEFAULTS = {file.size: file for file in reversed(_FILES)}


def default_file(size: str) -> PublishedFile:
    """The COCO weights of a size.

    Raises:
        WeightsError: none are published for it.
    """
    if size not in _DEFAULTS:
        near = suggestion(size, list(_DEFAULTS))
        raise WeightsError(f"size {size!r} has no published weights.{near} pretrain_weights=None trains from scratch")
    return _DEFAULTS[size]


def cache_dir() -> Path:
    """Where published files lie: $RF_HOME, else $ROBOFLOW_HOME, else ~/.roboflow/models."""
    folder = os.environ.get("RF_HOME") or os.environ.get("ROBOFLOW_HOME") or "~/.roboflow/models"
    return Path(folder).expanduser()
