"""Images per second of ``hubel train``, compared with a plain loop around torchvision's or timm's network.

    python benchmarks/training_speed.py /path/to/photographs --rounds 3
    python benchmarks/training_speed.py /path/to/photographs --model efficientnet_lite0

The plain loop is that of tutorials: ImageFolder, PIL transforms, a DataLoader with two workers, float32, AdamW, the
system's allocator. For resnet50 (128 px, batch 16) it is contiguous, for efficientnet_lite0 (224 px, batch 32)
channels-last. Both sides train from scratch on the same images; rounds alternate, each in a new process, and the figure
is the second epoch's (the first fills caches and measures). Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

EPOCHS = 2
SIZE = {"resnet50": 128, "efficientnet_lite0": 224}
BATCH = {"resnet50": 16, "efficientnet_lite0": 32}


def network(name: str, classes: int) -> torch.nn.Module:
    """The network of the plain loop."""
    if name == "resnet50":
        import torchvision

        return torchvision.models.resnet50(num_classes=classes)
    import timm
    import torch

    return timm.create_model("tf_efficientnet_lite0", num_classes=classes).to(memory_format=torch.channels_last)


def plain(data: Path, name: str) -> float:
    """Images/s of the plain loop's last epoch."""
    import torch
    import torchvision
    from torchvision import transforms as T

    steps = [T.RandomResizedCrop(SIZE[name], scale=(0.35, 1.0)), T.RandomHorizontalFlip(), T.ToTensor()]
    steps += [T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    images = torchvision.datasets.ImageFolder(str(data / "train"), T.Compose(steps))
    loader = torch.utils.data.DataLoader(images, BATCH[name], shuffle=True, num_workers=2, drop_last=True)
    model = network(name, len(images.classes))
    layout = torch.channels_last if name == "efficientnet_lite0" else torch.contiguous_format
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    speed = 0.0
    for _ in range(EPOCHS):
        start, seen = time.perf_counter(), 0
        for pixels, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(pixels.contiguous(memory_format=layout)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(labels)
        speed = seen / (time.perf_counter() - start)
    return speed


def ours(data: Path, name: str) -> float:
    """Images/s of ``hubel train``'s last epoch, training part."""
    with tempfile.TemporaryDirectory() as folder:
        options = f"--model {name} --from-scratch --image-size {SIZE[name]} --batch {BATCH[name]} --average 0"
        options += f" --epochs {EPOCHS}"
        command = [sys.executable, "-m", "hubel", "train", str(data), *options.split(), "--out", f"{folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = list(csv.DictReader(Path(folder, "run", "metrics.csv").read_text().splitlines()))
    return float(rows[-1]["images_per_second"])


def main() -> None:
    """Alternate the two and print medians and ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("HUBEL_DATA", ".")) / "flowers5"
    parser.add_argument("data", type=Path, nargs="?", default=default, help="class folders with train/ and val/")
    parser.add_argument("--model", choices=list(SIZE), default="resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        print(plain(arguments.data, arguments.model))
        return
    speeds: dict[str, list[float]] = {"plain": [], "hubel": []}
    for number in range(arguments.rounds):
        again = [sys.executable, __file__, str(arguments.data), "--model", arguments.model, "--plain"]
        speeds["plain"].append(float(subprocess.run(again, check=True, capture_output=True, text=True).stdout))
        speeds["hubel"].append(ours(arguments.data, arguments.model))
        print(
            f"round {number + 1}: " + "  ".join(f"{name} {s[-1]:.2f} images/s" for name, s in speeds.items()),
            flush=True,
        )
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratio = medians["hubel"] / medians["plain"]
    print(f"medians: plain {medians['plain']:.2f}, hubel {medians['hubel']:.2f}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
