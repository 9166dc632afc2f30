import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from rfdetr.cli.commands import COMMANDS
from rfdetr.cli.main import main
from rfdetr.cli.settings import fields_of
from rfdetr.config.presets import PRESETS
from rfdetr.errors import Interrupted
from rfdetr.version import __version__


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_every_setting(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # no line is wrapped
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert COMMANDS[command].summary in shown
    for name, field in fields_of(COMMANDS[command].configs).items():
        default = "" if field.is_required() or field.default is None else rf" \[{field.default}\]"
        meaning = re.escape(field.description or "") + default
        assert re.search(rf"^  --{name.replace('_', '-')}\b[^\n]*\s+{meaning}$", shown, re.MULTILINE), name


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"    {name}" in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(
            ["train", "data", "--lr=0", "--epoch=3", "--dryrun"],
            "--epoch: no such flag. Did you mean '--epochs'?\n"
            "--dryrun: no such flag. Did you mean '--dry-run'?\n"
            "TrainConfig: lr: input should be greater than 0, got '0'",
            id="flags",
        ),
        pytest.param(["train", "a", "b"], "unexpected argument 'b' (see rfdetr --help)", id="an argument too many"),
        pytest.param(
            ["train", "data", "--model", "nano", "--resolution", "100", "--epochs", "0", "--mask-ce-loss-coef", "1"],
            "TrainConfig: epochs: input should be greater than 0, got '0'\n"
            "resolution=100 is not a multiple of patch_size x num_windows = 32; nearest: 96 or 128\n"
            "mask_ce_loss_coef: of no effect on a detection model; leave it out or use a seg- size",
            id="what a size cannot take",
        ),
        pytest.param(
            ["train", "data", "--epochs", "three", "--precision", "int8"],
            "TrainConfig has 2 problems:\n"
            "  epochs: input should be a valid integer, unable to parse string as an integer, got 'three'\n"
            "  precision: input should be 'auto', '32', 'bf16' or 'fp16', got 'int8'",
            id="values",
        ),
        pytest.param(
            ["train", "--num-queries", "0"],
            "ModelSettings: num_queries: input should be greater than 0, got '0'\n"
            "TrainConfig: dataset_dir: required. Folder with the dataset, in COCO, YOLO, Pascal VOC or CSV format; in "
            "Python also a sequence of samples.",
            id="several configs",
        ),
        pytest.param(
            ["train", "data", "--model", "smal"],
            f"ModelChoice: model: no size 'smal'. Sizes: {', '.join(PRESETS)}. Did you mean 'small'?",
            id="size",
        ),
        pytest.param(["evaluate", "data", "--model", "nowhere.pth"], "nowhere.pth: no such file", id="weights"),
        pytest.param(["predict"], "PredictConfig: images: required. Images, or folders of images.", id="required"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"rfdetr: {expected}\n"


def test_a_wrong_dataset_is_one_message_and_leaves_nothing(
    tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output_dir = tmp_path / "output"
    assert main(["train", str(tmp_path / "data"), "--model", str(tiny_file), "--output-dir", str(output_dir)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"rfdetr: {tmp_path / 'data'}: no such folder. Give the folder of a dataset")
    assert error.count("\n") == 1
    assert not output_dir.exists()


def test_an_interrupted_run_saves_its_state(
    tiny_file: Path, shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = register_optimizer_step_post_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        flags = ["--model", str(tiny_file), "--output-dir", str(tmp_path), "--num-workers", "0", "--no-tensorboard"]
        with pytest.raises(Interrupted) as caught:
            main(["train", str(shapes), *flags])
    finally:
        hook.remove()
    assert caught.value.code == 130
    assert "rfdetr: stopping after this step and saving" in capfd.readouterr().err
    assert (tmp_path / "checkpoint.pth").exists()


def test_the_package_runs_as_a_module() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rfdetr", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603

    version, mistake = run("--version"), run("trian")
    assert (version.returncode, version.stdout) == (0, f"rfdetr {__version__}\n")
    assert mistake.returncode == 2
    assert "Traceback" not in mistake.stderr
    assert mistake.stderr.startswith("rfdetr: ")


@pytest.mark.parametrize("arguments", [["settings"], ["settings", "--json"], ["train", "--help"]], ids=" ".join)
def test_a_reader_that_has_read_enough(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "rfdetr", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 0
