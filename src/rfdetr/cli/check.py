"""`rfdetr check`: a dataset in numbers, what is wrong with it, what follows for training."""

from json import dumps
from pathlib import Path

from rfdetr.config.datasets import CheckConfig
from rfdetr.console import show
from rfdetr.errors import ConfigError
from rfdetr.files import write_atomically, write_text
from rfdetr.report.check_text import check_text
from rfdetr.report.dataset_check import Check, check_dataset, to_json


def run_check(config: CheckConfig, json: bool) -> int:
    """1 where the dataset has errors, else 0.

    Raises:
        ConfigError: a file cannot be written.
    """
    check = check_dataset(config)
    show(dumps(to_json(check), indent=2) + "\n" if json else check_text(check))
    if config.html is not None or config.pictures is not None:
        _write_files(check)
    return int(check.has_errors)


def _write_files(check: Check) -> None:
    from rfdetr.report.check_page import check_page
    from rfdetr.report.check_pictures import sheet, tiles

    config = check.config
    found = tiles(check.splits, check.statistics, config.num_pictures)
    try:
        if config.html is not None:
            write_text(Path(config.html), check_page(check, found))
        if config.pictures is not None and found:
            path = Path(config.pictures)
            kind = "PNG" if path.suffix.lower() == ".png" else "JPEG"
            write_atomically(path, lambda temporary: sheet(found).save(temporary, format=kind, quality=90))
    except OSError as error:
        raise ConfigError(
            f"{error.filename or config.html or config.pictures}: cannot be written: {error.strerror}"
        ) from None
