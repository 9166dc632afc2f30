"""metrics.csv: the rows of all epochs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfdetr.files import write_text


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows with a common header; what a row lacks is left empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
