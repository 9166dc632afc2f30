import json
from pathlib import Path

import pytest
import yaml

from rfdetr.cli.commands import COMMANDS
from rfdetr.cli.main import main
from rfdetr.config.runs import TrainConfig


def test_train_and_evaluate(tiny_file: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("epochs: 3\nbatch_size: 4\ngrad_accum_steps: 1\nnum_workers: 0\ntensorboard: false\n")
    run = tmp_path / "run"
    shared = ["--device", "cpu", "--config", str(settings)]
    assert main(["train", str(shapes), *shared, "--model", str(tiny_file), "--epochs=1", f"--output-dir={run}"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith(f"train: model={tiny_file} device=cpu dataset_dir={shapes} output_dir={run} epochs=1 ")
    assert shown[-1].startswith(f"best weights: {run / 'checkpoint_best_total.pth'}")
    assert yaml.safe_load((run / "settings.yaml").read_text())["epochs"] == 1

    found = tmp_path / "found"
    settings.write_text("num_workers: 0\n")
    weights = ["--model", str(run / "checkpoint_best_total.pth"), "--output-dir", str(found)]
    assert main(["evaluate", str(shapes), *shared, *weights, "--split", "valid"]) == 0
    assert "2 images, " in capsys.readouterr().out
    metrics = json.loads((found / "metrics_valid.json").read_text())
    assert metrics == json.loads((run / "metrics.json").read_text())


def test_demo_draws_trains_evaluates_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output-dir", str(tmp_path), "--epochs", "1", "--train-images", "8"]
    assert main(["demo", *arguments]) == 0
    for file in tmp_path.glob("*.pth"):
        file.unlink()  # hundreds of megabytes
    assert json.loads((tmp_path / "metrics.json").read_text())["num_images"] == 2
    assert (tmp_path / "predictions.jpg").stat().st_size > 10_000
    assert f"predictions beside the truth: {tmp_path / 'predictions.jpg'}" in capsys.readouterr().out


def test_settings_are_shown_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    shown = capsys.readouterr().out
    configs = {config for command in COMMANDS.values() for config in command.configs}
    assert all(shown.count(f"## {config.__name__}\n") == 1 for config in configs)
    assert all(f"| `{name}` |" in shown for config in configs for name in config.model_fields)


def test_settings_are_shown_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(TrainConfig.model_fields) <= rows.keys()
    assert rows["epochs"] == {
        "name": "epochs",
        "type": "int",
        "default": 100,
        "description": "Passes over the training split.",
    }
    assert rows["dataset_dir"]["default"] == "Required"
    assert rows["device"]["default"] == "cuda", "of training, not of the model"
    assert all(row["description"] for row in rows.values())


def test_the_page_of_the_documentation_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text() == capsys.readouterr().out
