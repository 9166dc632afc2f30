"""The check of a dataset as text for a terminal."""

from collections.abc import Iterator, Sequence

from rfdetr.data.copies import Copies
from rfdetr.data.statistics import LARGE, NARROW, SMALL
from rfdetr.report.dataset_check import Check, median

_MOST_CLASSES = 40
_FORMATS = {"coco": "COCO", "yolo": "YOLO", "voc": "Pascal VOC", "csv": "CSV"}


def check_text(check: Check) -> str:
    """All of it, problems last but for the advice: what is read first is at the bottom."""
    parts: list[Iterator[str] | list[str]] = []
    if check.format is not None:
        parts = [[headline(check)], split_lines(check), class_lines(check), box_lines(check), copy_lines(check)]
    parts += [problem_lines(check), advice_lines(check)]
    return "\n\n".join(text for part in parts if (text := "\n".join(part))) + "\n"


def headline(check: Check) -> str:
    images = sum(own.num_images for own in check.statistics.values())
    objects = sum(own.num_objects for own in check.statistics.values())
    classes = f"{len(check.class_names)} class{'es' * (len(check.class_names) != 1)}"
    name = _FORMATS.get(check.format or "", str(check.format))
    return f"{check.config.dataset_dir}: {name}, {classes}, {images:,} images, {objects:,} objects"


def split_lines(check: Check) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [
        ("split", "images", "objects", "without objects", "not listed", "objects per image: median", "most")
    ]
    for name, own in check.statistics.items():
        counts = own.objects_per_image
        numbers = (own.num_images, own.num_objects, own.num_empty, check.unlisted.get(name, 0))
        rows.append((name, *(f"{number:,}" for number in numbers), f"{median(counts):g}", f"{counts.max(initial=0)}"))
    yield from _table(rows)
    model = check.model
    limits = (
        f"num_queries={model.num_queries}, num_select={model.num_select}, eval_max_dets={check.config.eval_max_dets}"
    )
    yield f"limits of objects per image: {limits} ({model.size})"


def class_lines(check: Check) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("class", "", *(f"{name}" for name in check.statistics))]
    columns = [(own.objects_per_class, max(own.num_objects, 1)) for own in check.statistics.values()]
    for index, name in enumerate(check.class_names[:_MOST_CLASSES]):
        counts = (f"{counts[index]:,} ({counts[index] / total:.0%})" for counts, total in columns)
        rows.append((str(index), name, *counts))
    yield from _table(rows)
    if len(check.class_names) > _MOST_CLASSES:
        yield f"... and {len(check.class_names) - _MOST_CLASSES} more; --json has all"


def box_lines(check: Check) -> Iterator[str]:
    boxes = check.boxes
    yield (
        f"boxes at {boxes.resolution} pixels ({check.model.size}): {boxes.small:.0%} small (below {SMALL:g} x "
        f"{SMALL:g}), {boxes.medium:.0%} medium, {boxes.large:.0%} large (above {LARGE:g} x {LARGE:g}); "
        f"{boxes.narrow:.1%} narrower than {NARROW:g} pixels"
    )


def copy_lines(check: Check) -> Iterator[str]:
    if check.copies is not None:
        yield copies_sentence(check.copies)


def copies_sentence(copies: Copies) -> str:
    part = f"{copies.looked_at:,} of {copies.num_pictures:,}" if copies.is_sample else f"all {copies.num_pictures:,}"
    more = " (a sample, as many as time allowed; --decode reads all)" if copies.is_sample else ""
    text = f"pictures looked at: {part}{more}; {len(copies.unreadable)} cannot be decoded"
    for words, groups in (("equal to another one", copies.equal), ("that look like another one", copies.similar)):
        own = ", ".join(f"{count} in {split}" for split, count in copies.surplus(groups).items())
        text += f"; {own or 'none'} {words} of the same split"
    return text


def problem_lines(check: Check) -> Iterator[str]:
    if check.problems:
        yield "problems:"
        yield from (f"  {problem.severity}: {problem}" for problem in check.problems)
    else:
        yield "problems: none"


def advice_lines(check: Check) -> Iterator[str]:
    if check.advice:
        yield "advice:"
        yield from (f"  {line.message}" for line in check.advice)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    is_text = [index == 0 or not rows[0][index] for index in range(len(widths))]
    for row in rows:
        cells = zip(row, widths, is_text, strict=True)
        yield "  ".join(cell.ljust(width) if left else cell.rjust(width) for cell, width, left in cells).rstrip()
