"""Training and prediction on a GPU, beside the PyPI package of the same name: both sides take turns.

    python benchmarks/gpu.py --other OTHER_VENV/bin/python
    python benchmarks/gpu.py --device cpu --quick      # tries out the script itself

Training is `train()` on drawn images with 7 objects each: loading, forward and backward pass, losses, clipping,
optimiser and average all count. Where its time goes is read in the warm-up round, in which the host waits for the
device between the parts, so that their sum is a little more than a step. The largest batch is guessed from the memory
of the first, then tried by one side after the other. Prediction is `predict()` on images in memory.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sides import Side, median_ratio, rounds_asked_for, spread, tell

GIB = 2**30
# Class, pixels, and queries.
CASES = {
    "nano": ("RFDETRNano", 384, 300),
    "medium": ("RFDETRMedium", 576, 300),
    "seg-small": ("RFDETRSegSmall", 384, 100),
    "tiny": ("RFDETRNano", 192, 100),
}
PARTS = ("backbone", "decoder", "losses", "backward", "clipping", "optimiser", "rest")
DRAWN = 64
OBJECTS = 7
SHARE_OF_CARD = 0.92
"""Of its memory, that the guess of the largest batch takes."""
FORMATS = {"fp16": "float16", "bf16": "bfloat16"}


def device_waiter(device: str) -> Callable[[], None]:
    """Waits until the device has done everything."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


class Clock:
    """Follows training from outside, in either package: through torch alone."""

    def __init__(self, device: str, steps: int) -> None:
        self.device, self.steps = device, steps
        self.wait = device_waiter(device)
        self.rounds = rounds_asked_for()
        self.done = -1  # the first step makes what later ones use
        self.started = 0.0
        self.parts: Counter[str] = Counter()
        self.last_mark = 0.0

    def watch(self) -> None:
        import torch
        from torch.nn.modules import module
        from torch.optim import optimizer

        backward = torch.Tensor.backward

        def timed_backward(*args: Any, **kwargs: Any) -> None:
            self.mark("losses")
            backward(*args, **kwargs)
            self.mark("backward")

        torch.Tensor.backward = timed_backward  # type: ignore[assignment, method-assign]
        module.register_module_forward_pre_hook(lambda each, _: self.mark("rest") if is_detector(each) else None)
        module.register_module_forward_hook(self.after_forward)
        optimizer.register_optimizer_step_pre_hook(lambda *_: self.mark("clipping"))
        optimizer.register_optimizer_step_post_hook(lambda *_: self.after_step())

    def after_forward(self, each: Any, *_: Any) -> None:
        if is_detector(each):
            self.backbone = each.backbone
            self.mark("decoder")
        elif each is getattr(self, "backbone", None):
            self.mark("backbone")

    def mark(self, ending: str) -> None:
        """A part has ended; only the second half of the warm-up round is looked at."""
        if self.steps // 2 <= self.done < self.steps:
            self.wait()
            now = time.perf_counter()
            if self.last_mark:
                self.parts[ending] += now - self.last_mark
            self.last_mark = now

    def after_step(self) -> None:
        self.mark("optimiser")
        self.done += 1
        if self.done == 0:
            next(self.rounds)
        elif self.done % self.steps == 0:
            self.wait()
            tell({"seconds": (time.perf_counter() - self.started) / self.steps, "parts": self.parts, **self.memory()})
            if next(self.rounds, "no more") == "no more":
                raise SystemExit
        if self.done % self.steps == 0:
            self.started = time.perf_counter()

    def memory(self) -> dict[str, float]:
        import psutil
        import torch

        if self.device != "cuda":
            return {"memory": psutil.Process().memory_info().rss, "card": psutil.virtual_memory().total}
        return {"memory": torch.cuda.max_memory_reserved(), "card": torch.cuda.mem_get_info()[1]}


def is_detector(module: Any) -> bool:
    return {"backbone", "transformer", "class_embed"} <= module._modules.keys()


def load(case: str, weights: Path | None, device: str) -> Any:
    import rfdetr

    name, resolution, queries = CASES[case]
    settings = {"resolution": resolution, "num_queries": queries, "num_select": queries, "num_classes": 4}
    return getattr(rfdetr, name)(pretrain_weights=weights and str(weights), device=device, **settings)


def serve_training(side: str, case: str, batch: int, given: argparse.Namespace, folder: Path) -> None:
    """Train until nobody asks for more."""
    Clock(given.device, given.steps).watch()
    load(case, folder / f"{case}.pth", given.device).train(
        dataset_dir=folder / "shapes",
        output_dir=folder / f"{side}-{case}-{batch}",
        epochs=2,
        batch_size=batch,
        grad_accum_steps=1,
        multi_scale=False,
        tensorboard=False,
        num_workers=given.workers,
        seed=0,
        **({"device": given.device} if side == "ours" else {}),
    )


def serve_prediction(side: str, case: str, batch: int, number_format: str, given: argparse.Namespace) -> None:
    import torch
    from PIL import Image

    folder = Path(given.folder)
    model, wait = load(case, folder / f"{case}.pth", given.device), device_waiter(given.device)
    files = sorted((folder / "shapes" / "train").glob("*.jpg")) or sorted((folder / "shapes" / "train").glob("*.png"))
    images = [Image.open(file).convert("RGB") for file in files[:batch]]
    dtype = getattr(torch, FORMATS[number_format])
    settings = {"batch_size": batch} if side == "ours" else {}
    is_autocast = side == "ours" and given.device == "cpu"  # where `optimize` would take OpenVINO
    if side == "other":
        model.inference(compile=False, batch_size=batch, dtype=dtype)
    elif not is_autocast:
        model.optimize(precision=number_format)
    repeats = max(1, given.steps // batch)
    for _ in rounds_asked_for():
        started = time.perf_counter()
        with torch.autocast(given.device, dtype=dtype, enabled=is_autocast):
            for _ in range(repeats):
                model.predict(images, threshold=0.5, **settings)
        wait()
        tell((time.perf_counter() - started) / repeats / len(images))


def draw(folder: Path, images: int) -> None:
    """Few pictures, each under many ids, so that no epoch ends while the clock runs."""
    import json

    from rfdetr.data.synthetic import draw_dataset

    draw_dataset(folder, DRAWN, seed=0)
    path = next((folder / "train").glob("*.json"))
    drawn = json.loads(path.read_text())
    by_image: dict[int, list[dict[str, Any]]] = {}
    for each in drawn["annotations"]:
        by_image.setdefault(each["image_id"], []).append(each)
    content: dict[str, Any] = {**drawn, "images": [], "annotations": []}
    for number in range(images):
        source = drawn["images"][number % DRAWN]
        content["images"].append({**source, "id": number})
        own = by_image[source["id"]]
        for index in range(OBJECTS):
            each = {**own[index % len(own)], "id": len(content["annotations"]), "image_id": number}
            content["annotations"].append(each)
    path.write_text(json.dumps(content))


class Bench:
    """Asks both sides."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.pythons = {"ours": sys.executable} | ({"other": given.other} if given.other else {})

    def start(self, side: str, *work: object) -> Side:
        given = self.given
        options = ("--device", given.device, "--steps", given.steps, "--workers", given.workers)
        log = self.folder / f"{side}.log"
        return Side(self.pythons[side], __file__, side, *work, *options, "--folder", self.folder, log=log)

    def ask(self, sides: dict[str, Side], rounds: int) -> dict[str, list[Any]]:
        """The warm-up round, too. A side that has ended, for want of memory as a rule, gives no more."""
        found: dict[str, list[Any]] = {name: [] for name in sides}
        running = dict(sides)
        for _ in range(rounds + 1):
            for name, side in list(running.items()):
                try:
                    found[name].append(side.ask())
                except (SystemExit, BrokenPipeError):
                    del running[name]
        for side in sides.values():
            side.process.kill()
            side.process.wait()  # its memory on the card is free then
        return found

    def train(self, case: str, batches: dict[str, int], by_turns: bool = True) -> dict[str, list[Any]]:
        """Both sides by turns, or one after the other, each with the card to itself."""
        rounds = self.given.rounds
        found: dict[str, list[Any]] = {}
        for names in [list(batches)] if by_turns else [[name] for name in batches]:
            found |= self.ask({name: self.start(name, "train", case, batches[name]) for name in names}, rounds)
        rates = {
            name: [batches[name] / each["seconds"] for each in results[1:]]
            for name, results in found.items()
            if len(results) == rounds + 1
        }
        for name, results in found.items():
            if name not in rates:
                print(f"| {case} | {batches[name]} | {name} | ends: see {self.folder / name}.log |", flush=True)
                continue
            ratio = f"{median_ratio(rates[name], rates['other']):.2f}" if "other" in rates else ""
            parts, memory = results[-1]["parts"], results[-1]["memory"] / GIB
            shares = [f"{parts.get(part, 0) / sum(parts.values()):.0%}" for part in PARTS]
            row = (case, batches[name], name, spread(rates[name], 1), f"{memory:.1f}", ratio, *shares)
            print("|", " | ".join(map(str, row)), "|", flush=True)
        return found

    def train_largest(self, case: str, first: dict[str, list[Any]]) -> None:
        """Memory grows with the batch; what does not grow makes the guess too small rather than too large."""
        batches = {}
        for name, results in first.items():
            if results:
                last = results[-1]
                fitting = int(self.given.batch * SHARE_OF_CARD * last["card"] / last["memory"]) // 8 * 8
                batches[name] = min(fitting, self.given.batch * self.given.room)
        if batches:
            self.train(case, batches, by_turns=False)

    def predict(self, case: str, batch: int, number_format: str) -> None:
        sides = {name: self.start(name, "predict", case, batch, number_format) for name in self.pythons}
        found = {name: results[1:] for name, results in self.ask(sides, self.given.rounds).items()}
        for name, seconds in found.items():
            if seconds:
                ratio = f"{median_ratio(found['other'], seconds):.2f}" if found.get("other") else ""
                times = spread([1000 * each for each in seconds])
                print(f"| {case} | {batch} | {number_format} | {name} | {times} | {ratio} |", flush=True)


def run(given: argparse.Namespace, folder: Path) -> None:
    draw(folder / "shapes", images=max(DRAWN, (given.rounds + 2) * given.steps * given.batch * given.room))
    for case in given.cases:
        load(case, None, "cpu").save(folder / f"{case}.pth")
    bench = Bench(given, folder)
    columns = ("size", "batch", "side", "images/s", "GiB", "ratio", *PARTS)
    print("|", " | ".join(columns), "|\n|", " | ".join(["---"] * len(columns)), "|")
    for case in given.cases:
        first = bench.train(case, dict.fromkeys(bench.pythons, given.batch))
        bench.train_largest(case, first)
    print("\n| size | batch | format | side | ms per image | ratio |\n| --- | ---: | --- | --- | ---: | ---: |")
    for case in given.cases:
        for number_format in given.formats:
            for batch in given.predict_batches:
                bench.predict(case, batch, number_format)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a Python with the other package")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="as little as possible of everything")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["nano", "medium", "seg-small"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--room", type=int, default=16, help="times --batch: the largest batch that an epoch has room for"
    )
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--predict-batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        side, work, case, batch, *rest = given.serve
        if work == "train":
            serve_training(side, case, int(batch), given, Path(given.folder))
        else:
            serve_prediction(side, case, int(batch), rest[0], given)
        return
    if given.quick:
        quick = {"cases": ["tiny"], "batch": 2, "steps": 2, "rounds": 1, "room": 1, "workers": 1}
        vars(given).update(quick, formats=["bf16"], predict_batches=[1])
    with tempfile.TemporaryDirectory() as temporary:
        run(given, Path(temporary))


if __name__ == "__main__":
    main()
