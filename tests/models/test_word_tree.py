"""Word trees: probabilities, decisions and losses against plain loops, and the models that have one."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from darknet_judges import by_opencv, images, random_weights, resized
from hubel import Predictor, export
from hubel.cli.main import app
from hubel.errors import ModelError
from hubel.models import create_model, describe, load_model, resolve_model, save_model
from hubel.models.base import ClassTargets
from hubel.models.cfg_reference import read_cfg_model
from hubel.models.darknet.word_tree import WordTree
from hubel.models.metadata import find_model
from hubel.weights.darknet_cfg import parse_cfg, read_cfg, to_text
from hubel.weights.darknet_layers import layers_of, net_size
from hubel.weights.darknet_tree import Tree, parse_tree

DARKNET = Path("/usr/share/darknet")
ANIMALS = "thing -1\nanimal -1\nplant -1\ndog 1\ncat 1\nowl 1\noak 2\nterrier 3\nspaniel 3\nNorfolk 7\n"
NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"
BODY = "".join(
    f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
    for filters in (8, 16, 32, 64)
)
REGION = (
    "[convolutional]\nfilters=30\nactivation=linear\n"
    "[region]\nanchors=1,2, 3,4\nclasses=10\nnum=2\nsoftmax=1\ntree=data/animals.tree\nmap=data/few.map\n"
)
CLASSES = "[convolutional]\nfilters=10\nactivation=linear\n[avgpool]\n[softmax]\ngroups=1\ntree=/nowhere/animals.tree\n"


def random_tree(seed: int, count: int = 200) -> Tree:
    """Groups of all sizes, some of them deep."""
    rng = np.random.default_rng(seed)
    parents: list[int] = [-1] * int(rng.integers(1, 5))
    free = list(range(len(parents)))
    while len(parents) < count:
        parent = free.pop(int(rng.integers(len(free))) if rng.random() < 0.5 else -1)
        size = int(rng.choice([1, 2, 3, 7, 40]))
        free += range(len(parents), len(parents) + size)
        parents += [parent] * size
    return Tree(tuple(map(str, range(len(parents)))), tuple(parents))


def by_hand(tree: Tree, raw: list[float]) -> list[float]:
    """The probability of each class."""
    found: list[float] = []
    for index, parent in enumerate(tree.parents):
        siblings = [k for k, other in enumerate(tree.parents) if other == parent]
        total = sum(math.exp(raw[k]) for k in siblings)
        found.append(math.exp(raw[index]) / total * (1.0 if parent < 0 else found[parent]))
    return found


def walk(tree: Tree, probabilities: list[float]) -> int:
    """Darknet's way down: to the likeliest child while its probability exceeds one half; a root in any case."""
    here = -1
    while True:
        children = [k for k, parent in enumerate(tree.parents) if parent == here]
        best = max(children, key=probabilities.__getitem__, default=-1)
        if best < 0 or (probabilities[best] <= 0.5 and here >= 0):
            return here
        if probabilities[best] <= 0.5:
            return best
        here = best


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_and_decisions(seed: int) -> None:
    tree = random_tree(seed)
    words = WordTree(tree)
    raw = 6 * torch.randn(2, 40, len(tree.names), generator=torch.Generator().manual_seed(seed))
    found = words.log_probabilities(raw).exp()
    scores = words.scores(raw)
    ends = []
    for row, given, said in zip(raw.view(80, -1).tolist(), found.view(80, -1), scores.view(80, -1), strict=True):
        expected = by_hand(tree, row)
        assert np.abs(np.array(expected) - given.numpy()).max() < 1e-5
        ends.append(walk(tree, expected))
        assert said.nonzero().flatten().tolist() == [ends[-1]]
        assert float(said[ends[-1]]) == pytest.approx(expected[ends[-1]], abs=1e-5)
    inner = set(tree.parents)
    assert len(set(ends)) > 3 and any(end in inner for end in ends) and any(end not in inner for end in ends)
    leaves = words.leaf_probabilities(raw)
    torch.testing.assert_close(leaves.sum(-1), torch.ones(2, 40))
    kept = torch.tensor([index not in inner for index in range(len(tree.names))])
    torch.testing.assert_close(leaves[..., kept], found[..., kept])
    assert not leaves[..., ~kept].any()


def test_decisions_by_hand() -> None:
    """Numbers that a person can follow: probabilities given the parent, as logarithms."""
    words = WordTree(parse_tree(ANIMALS))
    given = {"animal": 0.9, "thing": 0.06, "plant": 0.04, "dog": 0.8, "cat": 0.15, "owl": 0.05, "oak": 1.0}
    given |= {"terrier": 0.6, "spaniel": 0.4, "Norfolk": 1.0}
    raw = torch.tensor([[math.log(given[name]) + 3 for name in words.tree.names]])
    probabilities = words.log_probabilities(raw).exp()
    assert float(probabilities[0, 7]) == pytest.approx(0.9 * 0.8 * 0.6) and float(probabilities[0, 9]) < 0.5
    assert words.tree.names[int(words.deepest(probabilities))] == "dog"
    assert words.scores(raw)[0].tolist() == pytest.approx([0, 0, 0, 0.72, 0, 0, 0, 0, 0, 0])
    mapped = WordTree(words.tree, (9, 1, 6))
    assert mapped.scores(raw)[0].tolist() == pytest.approx([0.432, 0.9, 0.04])
    assert mapped.node_of(torch.tensor([2, 0])).tolist() == [6, 9]
    # nothing is likely: the likeliest root
    raw[0, :3] = torch.tensor([0.45, 0.35, 0.2]).log()
    assert words.scores(raw)[0].nonzero().tolist() == [[0]]


def test_large_numbers_stay_finite() -> None:
    """Groups far below others, as with raw numbers of a network that has learned one group alone."""
    words = WordTree(parse_tree(ANIMALS))
    raw = torch.zeros(1, 10)
    raw[0, :3], raw[0, 3:6] = torch.tensor([500.0, 0, 0]), torch.tensor([-400.0, -401, -402])
    raw.requires_grad_()
    loss = words.loss(raw, torch.tensor([4]))
    expected = 500 + math.log(sum(math.exp(-k) for k in range(3))) + 1
    assert float(loss.detach()) == pytest.approx(expected)
    loss.sum().backward()
    assert raw.grad is not None and raw.grad.isfinite().all()


def test_the_loss_is_the_cross_entropy_of_each_group_on_the_way() -> None:
    words = WordTree(parse_tree(ANIMALS))
    raw = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([9, 4, 1])
    way = {9: [(0, 3, 1), (3, 6, 0), (7, 9, 0), (9, 10, 0)], 4: [(0, 3, 1), (3, 6, 1)], 1: [(0, 3, 1)]}
    for row, label in enumerate(labels.tolist()):
        expected: Any = sum(
            functional.cross_entropy(raw[row : row + 1, start:end], torch.tensor([target]))
            for start, end, target in way[label]
        )
        assert float(words.loss(raw[row : row + 1], labels[row : row + 1]).detach()) == pytest.approx(
            float(expected.detach())
        )
    assert torch.autograd.gradcheck(lambda given: words.loss(given, labels), raw)


def region_of(folder: Path, names: str | None = None) -> Path:
    """A cfg, its weights, and its tree and map as Darknet's are: in ``data`` beside the cfg's folder."""
    (folder / "cfg").mkdir()
    (folder / "data").mkdir()
    (folder / "data" / "animals.tree").write_text(ANIMALS)
    (folder / "data" / "few.map").write_text("9\n1\n6\n")
    path = folder / "cfg" / "net.cfg"
    path.write_text(NET + BODY + REGION)
    sections = parse_cfg(path.read_text())
    random_weights(layers_of(sections, net_size(sections[0])), path.with_suffix(".weights"))
    if names is not None:
        path.with_suffix(".names").write_text(names)
    return path


def test_a_detector_with_a_tree(tmp_path: Path) -> None:
    """By its cfg, saved and read again, exported to Darknet's files and to OpenVINO: the same scores."""
    path = region_of(tmp_path)
    model: Any
    model, metadata = resolve_model(str(path))
    assert (metadata.architecture, metadata.classes) == ("yolo_9000", list(parse_tree(ANIMALS).names))
    given = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        outputs = model(given)
        scores = model.predictions(outputs, (32, 64))["scores"][0]
    tree = parse_tree(ANIMALS)
    for row in range(len(scores)):
        there = by_hand(tree, outputs["scores"][0, row].tolist())
        end = walk(tree, there)
        expected = np.zeros(10)
        expected[end] = there[end] * float(outputs["objectness"][0, row, 0].sigmoid())
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-5)
    save_model(tmp_path / "saved", model, metadata)
    shutil.rmtree(tmp_path / "data")
    again: Any
    again, kept = load_model(tmp_path / "saved")
    with torch.no_grad():
        torch.testing.assert_close(again.predictions(again(given), (32, 64))["scores"][0], scores)
    assert kept.options["tree"] == ANIMALS
    done = export(str(tmp_path / "saved"), format="darknet", out=tmp_path / "written")
    assert (Path(done.path).parent / "model.tree").read_text() == ANIMALS
    written: Any
    written, named = resolve_model(done.path)
    assert named.classes == metadata.classes
    with torch.no_grad():
        torch.testing.assert_close(written.predictions(written(given), (32, 64))["scores"][0], scores)


@pytest.mark.slow
def test_engines_decide_alike(tmp_path: Path) -> None:
    path = region_of(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    results = [
        Predictor(str(path), engine=engine, precision="fp32", conf=0.001)(image)[0] for engine in ("torch", "openvino")
    ]
    one, other = results
    assert len(one.scores) > 3 and one.names == other.names
    assert np.abs(one.scores - other.scores).max() < 1e-4 and np.abs(one.boxes - other.boxes).max() < 1e-2


def test_a_map_names_the_classes_of_results(tmp_path: Path) -> None:
    path = region_of(tmp_path, "Norfolk terrier\nany animal\noak\n")
    model: Any
    model, metadata = resolve_model(str(path))
    assert (metadata.num_classes, metadata.classes) == (3, ["Norfolk terrier", "any animal", "oak"])
    given = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        outputs = model(given)
        scores = model.predictions(outputs, (32, 64))["scores"][0]
    there = by_hand(parse_tree(ANIMALS), outputs["scores"][0, 3].tolist())
    objectness = float(outputs["objectness"][0, 3, 0].sigmoid())
    assert scores[3].tolist() == pytest.approx([objectness * there[node] for node in (9, 1, 6)], abs=1e-5)
    save_model(tmp_path / "saved", model, metadata)
    again: Any = load_model(tmp_path / "saved")[0]
    with torch.no_grad():
        torch.testing.assert_close(again.predictions(again(given), (32, 64))["scores"][0], scores)
    done = export(str(tmp_path / "saved"), format="darknet", out=tmp_path / "written")
    assert resolve_model(done.path)[1].classes == metadata.classes


def test_names_stand_beside_the_tree_or_in_it(tmp_path: Path) -> None:
    path = region_of(tmp_path)
    (tmp_path / "data" / "animals.names").write_text("\n".join(f"kind {k}" for k in range(10)))
    found = read_cfg_model(path)
    assert found.classes[9] == "kind 9" and len(found.files) == 3
    identity = find_model(str(path))
    assert identity is not None and identity.is_unchanged()
    (tmp_path / "data" / "animals.names").write_text("\n".join(f"sort {k}" for k in range(10)))
    assert not identity.is_unchanged()


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    path = region_of(tmp_path)

    def fault() -> str:
        with pytest.raises(ModelError) as raised:
            read_cfg_model(path)
        assert "\n" not in raised.value.message and raised.value.hint
        return raised.value.message

    path.with_suffix(".names").write_text("one\ntwo\n")
    assert fault() == f"{path.with_suffix('.names')} names 2 classes, and net.cfg has 10"
    path.with_suffix(".names").unlink()
    file = tmp_path / "data" / "animals.tree"
    file.write_text(ANIMALS + "fern 20\n")
    assert fault() == f"line 11 of {file}: the parent of fern, 20, is not the index of a line above"
    file.write_text("animal -1\n")
    assert fault() == f"{file} has 1 classes, and net.cfg has 10"
    file.unlink()
    where = "net.cfg, [region] in line 36"
    here = [tmp_path / "cfg" / "data" / "animals.tree", file, tmp_path / "cfg" / "animals.tree"]
    assert fault() == f"{where}: there is no tree of classes in any of {here[0]}, {here[1]}, {here[2]}"
    path.write_text((NET + BODY + REGION).replace("data/animals.tree", "/etc/passwd"))
    assert fault() == f"{where}: tree=/etc/passwd is not a file whose name ends with .tree"
    path.write_text((NET + BODY + REGION).replace("data/animals.tree", 4000 * "a" + ".tree"))
    assert fault().startswith(f"{where}: there is no tree of classes in any of ")
    text = NET + BODY + REGION
    with pytest.raises(ModelError, match=r"it has a tree of classes, data/animals\.tree"):
        create_model("yolo_v2", cfg=text)
    with pytest.raises(ModelError, match="num_classes=3, and the tree has 10 classes"):
        create_model("yolo_9000", 3, cfg=text, tree=ANIMALS)
    with pytest.raises(ModelError, match=r"a tree of classes is for \[region\]"):
        create_model("yolo_9000", cfg=text.replace("[region]", "[yolo]"), tree=ANIMALS)
    saved = tmp_path / "saved"
    model = create_model("yolo_9000", cfg=text, tree=ANIMALS)
    save_model(saved, model, describe(model))
    record = json.loads((saved / "model.json").read_text())
    record["options"]["tree"] = record["options"]["tree"].replace("oak 2", "oak 9")
    (saved / "model.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match=r"model\.json: line 7 of the tree: the parent of oak, 9"):
        load_model(saved)


def test_names_of_any_language_are_kept(tmp_path: Path) -> None:
    model = create_model("yolo_9000", cfg=NET + BODY + REGION, tree="Tiere -1\nVögel 0\n猫 0\n")
    save_model(tmp_path / "saved", model, describe(model))
    assert load_model(tmp_path / "saved")[1].options["tree"] == "Tiere -1\nVögel 0\n猫 0\n"


def test_a_classifier_with_a_tree(tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    path.write_text(NET + BODY + CLASSES)
    (tmp_path / "animals.tree").write_text(ANIMALS)
    sections = parse_cfg(path.read_text())
    random_weights(layers_of(sections, net_size(sections[0])), path.with_suffix(".weights"))
    model: Any
    model, metadata = resolve_model(str(path))
    assert metadata.classes == list(parse_tree(ANIMALS).names)
    raw = model(torch.rand(4, 3, 32, 64)).detach()
    found = model.predictions(raw, (32, 64))["probabilities"]
    tree = parse_tree(ANIMALS)
    for row, given in zip(raw.tolist(), found, strict=True):
        expected = [p if k not in tree.parents else 0 for k, p in enumerate(by_hand(tree, row))]
        assert given.tolist() == pytest.approx(expected, abs=1e-5)
    labels, weights = torch.tensor([9, 3, 0, 6]), torch.rand(10) + 0.5
    each = torch.tensor([-math.log(by_hand(tree, row)[label]) for row, label in zip(raw.tolist(), labels, strict=True)])
    loss = model.losses(raw, ClassTargets(labels, class_weights=weights))["class"]
    assert float(loss) == pytest.approx(float((weights[labels] * each).sum() / weights[labels].sum()), rel=1e-5)
    even = torch.tensor([-sum(map(math.log, by_hand(tree, row))) / 10 for row in raw.tolist()])
    smoothed = model.losses(raw, ClassTargets(labels, label_smoothing=0.2))["class"]
    assert float(smoothed) == pytest.approx(float((0.8 * each + 0.2 * even).mean()), rel=1e-5)
    best = found.argmax(1)
    assert model.training_metrics(raw, ClassTargets(best)) == {"top1": 4}


def test_the_classifier_of_nothing_but_roots_is_the_plain_one() -> None:
    """Cross-entropy of torch, smoothing and blends of images included."""
    tree = "".join(f"{k} -1\n" for k in range(10))
    cfg = NET + BODY + CLASSES.replace("tree=/nowhere/animals.tree\n", "")
    torch.manual_seed(0)
    model: Any = create_model("darknet_classifier", cfg=cfg, tree=tree)
    raw = torch.randn(3, 10)
    for labels in (torch.tensor([1, 5, 9]), torch.rand(3, 10).softmax(1)):
        loss = model.losses(raw, ClassTargets(labels, label_smoothing=0.1))["class"]
        torch.testing.assert_close(loss, functional.cross_entropy(raw, labels, label_smoothing=0.1))
    torch.testing.assert_close(model.predictions(raw, (32, 64))["probabilities"], raw.softmax(1))


def published(name: str, side: int, folder: Path, classes: int) -> tuple[Path, Path]:
    """A cfg of Debian's for images of a side, beside its tree, and random weights."""
    if not (DARKNET / "cfg").is_dir():
        pytest.skip("needs Debian's cfgs and data: apt-get install darknet")
    sections = resized(read_cfg(DARKNET / "cfg" / f"{name}.cfg"), side)
    path = folder / f"{name}.cfg"
    path.write_text(to_text(sections))
    random_weights(layers_of(sections, net_size(sections[0])), path.with_suffix(".weights"), gain=0.8)
    return path, path.with_suffix(".weights")


def test_yolo9000_as_published(tmp_path: Path) -> None:
    """``yolo9000.cfg`` in Darknet's own folders, with its tree: OpenCV's numbers up to the boxes, and the way down."""
    path, weights = published("yolo9000", 64, tmp_path, 9418)
    model: Any
    model, metadata = resolve_model(f"{path}:{weights}")
    assert (metadata.num_classes, metadata.classes[:3]) == (9418, ["thing", "matter", "object"])
    given = images(model.graph.layers[0])
    cut = path.with_name("cut.cfg")
    cut.write_text(path.read_text().partition("[region]")[0])
    theirs = by_opencv(cut, weights, given, tmp_path)[0].reshape(3, 9423, 4).transpose(2, 0, 1).reshape(12, 9423)
    with torch.no_grad():
        outputs = model(torch.from_numpy(given))
        scores = model.predictions(outputs, (64, 64))["scores"][0].numpy()
    ours = torch.cat([outputs[name][0] for name in ("boxes", "objectness", "scores")], 1).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    tree = parse_tree((DARKNET / "data" / "9k.tree").read_text())
    exponents = np.exp(theirs[0, 5:].astype(np.float64))
    for group in tree.groups:
        exponents[group] /= exponents[group].sum()
    for index, parent in enumerate(tree.parents):
        exponents[index] *= 1 if parent < 0 else exponents[parent]
    end = walk(tree, exponents.tolist())
    assert scores[0].nonzero()[0].tolist() == [end]
    assert scores[0, end] == pytest.approx(exponents[end] / (1 + math.exp(-theirs[0, 4])), rel=1e-3)


@pytest.mark.slow
def test_yolo9000_finds_cocos_classes_by_its_map(tmp_path: Path) -> None:
    path, weights = published("yolo9000", 64, tmp_path, 9418)
    shutil.copy(DARKNET / "data" / "coco.names", tmp_path / "yolo9000.names")
    model: Any
    model, metadata = resolve_model(f"{path}:{weights}")
    assert (metadata.num_classes, metadata.classes[0], metadata.classes[-1]) == (80, "person", "toothbrush")
    outputs = model(torch.from_numpy(images(model.graph.layers[0])))
    all_of = model.tree.log_probabilities(outputs["scores"][0, 5].detach()).exp()
    nodes = [int(line) for line in (DARKNET / "data" / "coco9k.map").read_text().split()]
    found = model.predictions(outputs, (64, 64))["scores"][0, 5].detach()
    torch.testing.assert_close(found, outputs["objectness"][0, 5].detach().sigmoid() * all_of[nodes])


def test_the_commands(tmp_path: Path) -> None:
    path = region_of(tmp_path)
    done = CliRunner().invoke(app, ["summary", str(path), "--json"])
    assert done.exit_code == 0 and [30, 2, 4] in [row["output"] for row in json.loads(done.stdout)["layers"]]
    tree = tmp_path / "data" / "animals.tree"
    done = CliRunner().invoke(app, ["summary", "yolo_9000", "--set", f"tree={tree}", "--input", "3x64x64", "--json"])
    assert done.exit_code == 0, done.output
    assert [45, 2, 2] in [row["output"] for row in json.loads(done.stdout)["layers"]]
    tree.write_text("animal -1\nanimal 0\n")
    done = CliRunner().invoke(app, ["summary", "yolo_9000", "--set", f"tree={tree}"])
    assert done.exit_code == 1 and f"line 2 of {tree}: animal is in line 1 already" in str(done.exception)


def test_depths_are_followed_to_the_end() -> None:
    """A tree as deep as it has classes, whose probabilities are all those of the root."""
    parents = tuple(range(-1, 299))
    words = WordTree(Tree(tuple(map(str, range(300))), parents))
    found = words.log_probabilities(torch.randn(2, 300))
    assert all(one == other - 1 for one, other in pairwise(parents)) and not found.any()
    assert words.deepest(found.exp()).tolist() == [299, 299]


@pytest.mark.filterwarnings("ignore")
def test_tracing_gives_the_same() -> None:
    words = WordTree(random_tree(5))
    raw = 4 * torch.randn(1, 7, len(words.tree.names))

    class Scores(torch.nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return words.scores(given)

    traced = torch.jit.trace(Scores(), raw)
    other = 4 * torch.randn(1, 7, len(words.tree.names))
    torch.testing.assert_close(traced(other), words.scores(other))
