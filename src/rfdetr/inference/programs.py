"""Detectors as programs of OpenVINO: traced and converted once, and kept on disk for later processes."""

import hashlib
import os
import re
import shutil
import tempfile
import time
import warnings
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rfdetr import models
from rfdetr.console import say
from rfdetr.errors import ConfigError
from rfdetr.files import cache_folder
from rfdetr.inference.quantization import fold_norms
from rfdetr.models.detector import Detector
from rfdetr.models.dinov2 import PatchEmbedding, resize_positions
from rfdetr.version import __version__

PROGRAMS_KEPT = 4
"""Each is as large as the weights in float32."""
CODE = (Path(models.__file__).parent, Path(__file__).parent)
"""Folders of what programs are made from and by: other code makes other programs."""
OLDEST_OPENVINO = (2026, 3)
"""Earlier ones do not multiply bytes beside bfloat16."""
_HOW = f"pip install --upgrade 'openvino>={OLDEST_OPENVINO[0]}.{OLDEST_OPENVINO[1]}'"
_FILE = "detector.xml"  # beside it OpenVINO writes the weights
_UNFINISHED = "tmp"  # how folders begin in which programs are made
_ABANDONED = 24 * 3600  # seconds after which nobody can be at work in one: the process was killed


class _LastLayer(nn.Module):
    """The detector with tensors alone as outputs, as a trace needs: those that predictions are made of."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Float[Tensor, "B N R R"]) -> tuple[Tensor, ...]:
        outputs = self.detector(images, last_only=True)
        masks = outputs.get("pred_masks")
        of_masks = () if masks is None else (masks.features, masks.queries, masks.bias)
        return outputs["pred_logits"], outputs["pred_boxes"], *of_masks


def import_openvino() -> Any:
    """Raises:
    ConfigError: it is not installed, is too old, or cannot be loaded.
    """
    try:
        openvino = import_module("openvino")
    except ImportError as error:
        raise ConfigError(f"optimize: needs OpenVINO ({error}). Install it: {_HOW}") from None
    version = openvino.__version__.split("-")[0]
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_OPENVINO:
        least = ".".join(map(str, OLDEST_OPENVINO))
        raise ConfigError(f"optimize: needs OpenVINO {least} or later, this is {version}. Install it: {_HOW}")
    return openvino


def kept_program(detector: Detector, batch_size: int) -> Path:
    """The file of the detector's program for so many images; it is made if there is none.

    Its numbers are those of the detector; the processor's format is chosen when it is loaded.

    Raises:
        ConfigError: OpenVINO is not installed, or the cache cannot be written to.
    """
    openvino = import_openvino()
    programs = cache_folder() / "optimized"
    folder = programs / _digest(detector, [batch_size, __version__, torch.__version__, openvino.__version__])
    try:
        if (folder / _FILE).is_file():
            with suppress(OSError):  # where it may only be read
                os.utime(folder)
            return folder / _FILE
        say(f"optimize: the model is converted, and kept in {programs}")
        programs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=programs) as temporary:
            openvino.save_model(_converted(openvino, detector, batch_size), Path(temporary) / _FILE, False)
            _put_in_place(Path(temporary), folder)
        _remove_oldest(programs)
    except OSError as error:
        raise ConfigError(
            f"optimize: {programs}: {error.strerror or error}. Another place for it can be named in RFDETR_CACHE"
        ) from None
    return folder / _FILE


def _digest(detector: Detector, versions: list[object]) -> str:
    """Of everything that the program depends on."""
    found = hashlib.sha256(repr([detector.config, *versions]).encode())
    for file in (file for folder in CODE for file in sorted(folder.glob("*.py"))):
        found.update(file.read_bytes())
    for name, tensor in detector.state_dict().items():
        found.update(name.encode())
        found.update(tensor.contiguous().numpy())
    return found.hexdigest()[:32]


def _converted(openvino: Any, detector: Detector, batch_size: int) -> Any:
    side = detector.config.resolution
    images = torch.zeros(batch_size, detector.config.num_channels, side, side)
    network = _LastLayer(deepcopy(detector).eval().requires_grad_(False))
    _fix_grid(network.detector.backbone.vit.embeddings, side)
    fold_norms(network.detector)
    with torch.no_grad(), warnings.catch_warnings():
        # A trace warns of what it takes for constant. Here all is that depends on the size of the images.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, images, check_trace=False)
    # The part of `convert_model` that is needed here, in half the time, and without its reports to its makers.
    frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
    decoder = import_module("openvino.frontend.pytorch.ts_decoder").TorchScriptPythonDecoder(traced)
    program = frontend.convert(frontend.load(decoder))  # the variable keeps the decoder alive meanwhile
    program.reshape(list(images.shape))
    return program


def _fix_grid(embedding: PatchEmbedding, side: int) -> None:
    """Positions for images of this size, as torch resizes them: OpenVINO's bicubic interpolation gives others."""
    cells = side // embedding.patch_size
    of_class, grid = embedding.position_embeddings.split([1, embedding.grid_size**2], dim=1)
    resized = resize_positions(grid, embedding.grid_size, (cells, cells)).flatten(1, 2)
    embedding.position_embeddings = nn.Parameter(torch.cat([of_class, resized], dim=1), requires_grad=False)
    embedding.grid_size = cells


def _put_in_place(made: Path, folder: Path) -> None:
    """The whole folder at once. Another process may have been faster, with the same content."""
    copy = made / "whole"
    copy.mkdir()
    for file in made.glob(f"{Path(_FILE).stem}.*"):
        file.rename(copy / file.name)
    try:
        copy.rename(folder)
    except OSError:
        if not (folder / _FILE).is_file():
            raise


def _remove_oldest(programs: Path) -> None:
    """Of those that are in place; of the folders in which processes are at work, those that were left long ago."""
    unfinished = set(programs.glob(f"{_UNFINISHED}*"))
    found = {file.parent for file in programs.glob(f"*/{_FILE}")} - unfinished
    abandoned = [folder for folder in unfinished if time.time() - _last_used(folder) > _ABANDONED]
    for folder in [*sorted(found, key=_last_used, reverse=True)[PROGRAMS_KEPT:], *abandoned]:
        shutil.rmtree(folder, ignore_errors=True)


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process has just removed it
        return 0
