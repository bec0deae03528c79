"""DeepSORT's network against its table and its equations, and what it learns from folders of identities."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import hubel
from hubel.inference.embedder import Embedder
from hubel.models.classification.deepsort_reid import embedding_of

# Table 1 of arXiv 1703.07402: part, output.
TABLE = {
    "conv1": (32, 128, 64),
    "conv2": (32, 128, 64),
    "pool": (32, 64, 32),
    "unit1": (32, 64, 32),
    "unit2": (32, 64, 32),
    "unit3": (64, 32, 16),
    "unit4": (64, 32, 16),
    "unit5": (128, 16, 8),
    "unit6": (128, 16, 8),
}


def test_every_output_is_that_of_the_table() -> None:
    model = hubel.create_model("deepsort_reid").eval()
    signal = torch.rand(2, 3, 128, 64)
    for name, part in model.backbone.named_children():
        signal = part(signal)
        assert tuple(signal.shape[1:]) == TABLE[name], name
    assert tuple(model.head.embed(signal).shape) == (2, 128)


def test_the_parameters_are_those_of_the_table() -> None:
    """Without the identities, and without scales of normalizations, which TensorFlow's slim leaves out by default."""
    model = hubel.create_model("deepsort_reid")
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    scales = sum(norm.weight.numel() for norm in norms)
    counted = sum(value.numel() for name, value in model.named_parameters() if "classifier" not in name)
    assert counted - scales == 2_800_864


def test_scores_are_the_cosine_softmax() -> None:
    """Equation 4, in NumPy."""
    torch.manual_seed(0)
    model = hubel.create_model("deepsort_reid", num_classes=7).eval()
    images = torch.rand(3, 3, 128, 64)
    with torch.no_grad():
        vectors, scores = model.embed(images).numpy(), model(images).softmax(1).numpy()
        weights, scale = model.head.classifier.weight.numpy(), float(model.head.classifier.log_scale.exp())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    powers = np.exp(scale * vectors @ (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T)
    np.testing.assert_allclose(scores, powers / powers.sum(1, keepdims=True), rtol=1e-4)


def test_its_embedding_is_its_own() -> None:
    model = hubel.create_model("deepsort_reid", num_classes=3).eval()
    images = torch.rand(2, 3, 128, 64)
    with torch.no_grad():
        torch.testing.assert_close(embedding_of(model)(images), model.embed(images))


def person(colours: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Somebody with a head, a jacket and trousers of these colours, somewhere in the middle of a noisy crop."""
    image = Image.fromarray(rng.integers(90, 140, (128, 64, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    dx, dy = rng.integers(-5, 6, 2).tolist()
    light = rng.uniform(0.8, 1.1)
    jacket, trousers = (tuple(int(v) for v in np.clip(colour * light, 0, 255)) for colour in colours)
    pen.ellipse((24 + dx, 6 + dy, 40 + dx, 24 + dy), fill=(200, 160, 140))
    pen.rectangle((16 + dx, 24 + dy, 48 + dx, 70 + dy), fill=jacket)
    pen.rectangle((20 + dx, 70 + dy, 44 + dx, 122 + dy), fill=trousers)
    return image


def write_people(folder: Path, people: int, images: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    colours = [rng.uniform(20, 230, (2, 3)) for _ in range(people)]
    for number, colour in enumerate(colours):
        home = folder / f"person-{number:02d}"
        home.mkdir(parents=True)
        for index in range(images):
            person(colour, rng).save(home / f"{index}.png")
    return colours


def test_learns_to_recognize_people_it_has_never_seen(tmp_path: Path) -> None:
    """Trained on some identities, others' vectors are nearest to those of the same person: rank 1 of 0.9 or more."""
    write_people(tmp_path / "people", 10, 10)
    run = tmp_path / "run"
    hubel.train(
        tmp_path / "people",
        out=run,
        model="deepsort_reid",
        epochs=4,
        batch=16,
        learning_rate=1e-3,
        precision="float32",
        seed=0,
        threads=1,
        augmentation=(),
    )
    assert json.loads((run / "best" / "model.json").read_text())["architecture"] == "deepsort_reid"
    embed = Embedder(run)
    rng = np.random.default_rng(9)
    vectors, names = [], []
    for number in range(10):
        colours = rng.uniform(20, 230, (2, 3))
        for _ in range(4):
            (vector,) = embed(np.asarray(person(colours, rng)), np.array([[0, 0, 64, 128]]))
            vectors.append(vector)
            names.append(number)
    likeness = np.stack(vectors) @ np.stack(vectors).T
    np.fill_diagonal(likeness, -1)
    assert vectors[0].shape == (128,)
    assert np.mean(np.array(names)[likeness.argmax(1)] == np.array(names)) >= 0.9


def test_untrained_weights_are_refused_as_an_appearance(tmp_path: Path) -> None:
    with pytest.raises(hubel.HubelError):
        Embedder("deepsort_reid")
