from pathlib import Path
from typing import Any

import pytest

from rfdetr.errors import ConfigError

from .tiny import train_tiny


@pytest.mark.parametrize(
    ("setting", "module", "flags"),
    [
        ("tensorboard", "lightning.fabric.loggers.tensorboard", ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE")),
        ("wandb", "lightning.pytorch.loggers.wandb", ("_WANDB_AVAILABLE",)),
    ],
)
def test_a_logger_that_is_not_installed_is_left_out(
    setting: str,
    module: str,
    flags: tuple[str, ...],
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flag in flags:
        monkeypatch.setattr(f"{module}.{flag}", False)
    settings: dict[str, Any] = {"use_ema": False, setting: True}
    result, _ = train_tiny(shapes, tmp_path, **settings)
    assert len(result.history) == 1
    assert capsys.readouterr().err == (
        f"rfdetr: warning: {setting}=True, but {setting} is not installed; training goes on without it "
        "(pip install 'rfdetr[loggers]')\n"
    )


def test_tensorboard_files_lie_in_a_folder_named_like_the_run(shapes: Path, tmp_path: Path) -> None:
    train_tiny(shapes, tmp_path, use_ema=False, tensorboard=True, run="first try")
    (events,) = (tmp_path / "tensorboard" / "first try").glob("events.out.tfevents.*")
    content = events.read_bytes()
    assert b"val/mAP_50_95" in content
    assert b"train/loss" in content


def test_a_logger_that_cannot_start_is_an_error(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").touch()
    with pytest.raises(ConfigError, match=r"^tensorboard: cannot start: .*tensorboard'$"):
        train_tiny(shapes, tmp_path, tensorboard=True)
