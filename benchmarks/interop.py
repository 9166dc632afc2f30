"""Do our checkpoints and those of the PyPI package rfdetr mean the same model? Both ways, with random weights.

    python benchmarks/interop.py OTHER_VENV/bin/python --sizes nano seg-nano

OTHER_VENV is an environment in which that package is installed. Every file is opened by both sides; their predictions
on drawn images must agree, and its weights must come back bit by bit. Where random weights tie two proposals of an
image to within rounding, these may change places in the selection of queries, and all detections of the image change a
little: such images are left out, and the table says how many are left.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import rfdetr
from rfdetr.classes import ClassTable
from rfdetr.config.presets import class_name, preset
from rfdetr.models.detector import Detector
from rfdetr.weights.checkpoint import Checkpoint, save_checkpoint
from rfdetr.weights.names import to_published

NAMES = ["screw", "nut", "größe 3"]
TOLERANCE = 1e-4
# Proposals whose scores differ by less may change places; two builds of one network differ by about 1e-6.
TIE = 3e-6
KINDS = ("boxes", "scores", "labels", "names", "masks")
Arrays = dict[str, np.ndarray]

# Runs in the other environment: opens `given`, or, after changing every number in it, the file it has made of that.
# (Some of its models cannot be made from nothing without a download.)
OTHER = """
import sys, numpy, torch, rfdetr
name, given, folder, seed = sys.argv[1:5]
if seed != "unchanged":
    torch.manual_seed(int(seed))
    model = getattr(rfdetr, name)(pretrain_weights=given, num_classes=3, device="cpu")
    network = model.model.model
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    config = model.model_config.model_dump()
    torch.save({"model": network.state_dict(), "args": {"class_names": NAMES}, "model_name": name,
                "model_config": config}, folder + "/other.pth")
    given = folder + "/other.pth"
model = rfdetr.from_checkpoint(given, device="cpu")
assert type(model).__name__ == name, type(model)
detections = model.predict(sys.argv[5:], threshold=0.0)
found = {}
for i, each in enumerate(detections):
    found[f"boxes{i}"], found[f"scores{i}"], found[f"labels{i}"] = each.xyxy, each.confidence, each.class_id
    found[f"names{i}"] = numpy.array(each.data["class_name"], dtype=str)
    if each.mask is not None:
        found[f"masks{i}"] = numpy.packbits(each.mask, axis=-1)
numpy.savez(folder + "/predictions.npz", **found)
torch.save(model.model.model.state_dict(), folder + "/state.pth")
"""


def draw(folder: Path, count: int = 4) -> list[Path]:
    """Blobs of colour, of different sizes."""
    paths = []
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((400 + 40 * number, 500 - 50 * number), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number}.png")
        picture.save(paths[-1])
    return paths


def random_checkpoint(size: str, path: Path) -> None:
    """Weights with noise everywhere, so that no head is constant."""
    config = preset(size).replace(num_classes=len(NAMES))
    detector = Detector(config, seed=0)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.03)
    classes = ClassTable.from_categories([(7 + 2 * i, name) for i, name in enumerate(NAMES)])
    save_checkpoint(path, Checkpoint(detector.state_dict(), config, classes))


def run_other(python: str, size: str, given: Path, seed: str, images: list[Path]) -> Arrays:
    """Its predictions; `other.pth` and `state.pth` lie beside the file."""
    script = OTHER.replace("NAMES", repr(NAMES))
    arguments = [class_name(size), str(given), str(given.parent), seed, *map(str, images)]
    command = [python, "-W", "ignore", "-c", script, *arguments]
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"the other side failed with {given}:\n{done.stderr[-2000:]}")
    return dict(np.load(given.parent / "predictions.npz"))


def predictions(model: rfdetr.RFDETR, images: list[Path]) -> tuple[Arrays, list[int]]:
    """What is found, and which images have no tie among the selected proposals."""
    found: Arrays = {}
    scores: list[torch.Tensor] = []
    head = model.detector.transformer.enc_out_class_embed[0]
    hook = head.register_forward_hook(lambda _module, _inputs, logits: scores.append(logits.amax(dim=-1)))
    for number, each in enumerate(model.predict(images, threshold=0.0, batch_size=len(images))):
        if each.confidence is None or each.class_id is None:
            raise TypeError("predictions have scores and class ids")
        found[f"boxes{number}"], found[f"scores{number}"] = each.xyxy, each.confidence
        found[f"labels{number}"], found[f"names{number}"] = each.class_id, np.array(each.data["class_name"], dtype=str)
        if each.mask is not None:
            found[f"masks{number}"] = np.packbits(np.asarray(each.mask), axis=-1)
    hook.remove()
    best = scores[0].sort(dim=-1, descending=True).values[:, : model.config.num_queries + 1]
    gaps = (best[:, :-1] - best[:, 1:]).amin(dim=-1)
    return found, [number for number, gap in enumerate(gaps.tolist()) if gap > TIE]


def compare(ours: Arrays, other: Arrays, images: list[int]) -> tuple[list[str], bool]:
    """Largest differences over all detections, and whether they are small enough."""
    if ours.keys() != other.keys():
        return [f"only one side has {sorted(ours.keys() ^ other.keys())}"], False
    boxes, scores, wrong, pixels, masks = 0.0, 0.0, 0, 0, 0
    for number in images:
        a, b = (
            {kind: side[f"{kind}{number}"] for kind in KINDS if f"{kind}{number}" in side} for side in (ours, other)
        )
        # Detections of almost the same score may have changed places.
        order = np.abs(rows(a)[:, None] - rows(b)).max(axis=-1).argmin(axis=1)
        boxes = max(boxes, float(np.abs(a["boxes"] - b["boxes"][order]).max()))
        scores = max(scores, float(np.abs(a["scores"] - b["scores"]).max()))
        wrong += len(order) - len(set(order)) + sum(int((a[k] != b[k][order]).sum()) for k in ("labels", "names"))
        if "masks" in a:
            pixels += int(np.bitwise_count(a["masks"] ^ b["masks"][order]).sum())
            masks += 8 * a["masks"].size
    # Boxes are in pixels of pictures of about 500.
    is_same = bool(images) and boxes / 500 < TOLERANCE and scores < TOLERANCE and wrong == 0 and pixels <= masks * 1e-5
    return [f"{boxes:.1e}", f"{scores:.1e}", str(wrong), f"{pixels} of {masks}" if masks else "-"], is_same


def rows(side: Arrays) -> np.ndarray:
    return np.concatenate([side["boxes"] / 500, side["scores"][:, None], side["labels"][:, None]], axis=1)


def same_weights(state: dict[str, torch.Tensor], model: rfdetr.RFDETR) -> bool:
    """The other side registers one buffer more, which is empty."""
    own = to_published(model.detector.state_dict())
    state = {name: tensor for name, tensor in state.items() if name != "_kp_active_mask"}
    return state.keys() == own.keys() and all(torch.equal(tensor, own[name]) for name, tensor in state.items())


def check(size: str, python: str, images: list[Path]) -> list[tuple[list[str], bool]]:
    folder = images[0].parent
    ours, theirs, found = folder / "ours.pth", folder / "other.pth", []
    random_checkpoint(size, ours)
    ways = (("ours -> theirs -> ours", ours, "unchanged"), ("theirs -> ours", theirs, "1"))
    for direction, file, change in ways:
        other = run_other(python, size, ours, change, images)
        model = rfdetr.from_checkpoint(file, device="cpu")
        found_here, clear = predictions(model, images)
        cells, is_same = compare(found_here, other, clear)
        cells[:0] = [f"{len(clear)} of {len(images)}"]
        exact = same_weights(torch.load(folder / "state.pth"), model)
        found.append(([size, direction, *cells, "bit-exact" if exact else "DIFFERENT"], is_same and exact))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("python", help="a Python in which the PyPI package rfdetr is installed")
    parser.add_argument("--sizes", nargs="+", default=["nano", "seg-nano"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    header = ["size", "direction", "images", "boxes (px)", "scores", "labels wrong", "mask pixels wrong", "weights"]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    is_fine = True
    with tempfile.TemporaryDirectory() as folder:
        images = draw(Path(folder))
        for size in given.sizes:
            for cells, is_same in check(size, given.python, images):
                print("| " + " | ".join(cells) + " |", flush=True)
                is_fine &= is_same
    print("all the same" if is_fine else "NOT the same")
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
