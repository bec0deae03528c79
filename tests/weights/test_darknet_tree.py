"""Darknet's word trees and maps: what they hold, and what is refused by its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubel.errors import ModelError
from hubel.weights.darknet_tree import LARGEST_TREE, parse_map, parse_tree, read_lines, to_text

DATA = Path("/usr/share/darknet/data")
ANIMALS = "animal -1\nplant -1\nhorned owl 0\ndog 0\nterrier 3\n"


def test_names_may_have_spaces_and_lines_their_ends() -> None:
    tree = parse_tree("animal\t-1\r\nplant -1\r\n  horned owl 0 \r\ndog 0\r\nterrier 3\r\n\r\n")
    assert tree == parse_tree(ANIMALS)
    assert (tree.names, tree.parents) == (("animal", "plant", "horned owl", "dog", "terrier"), (-1, -1, 0, 0, 3))
    assert tree.groups == [range(2), range(2, 4), range(4, 5)]
    assert to_text(tree.names, tree.parents) == ANIMALS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "x.tree has no classes"),
        (" \n\n", "x.tree has no classes"),
        ("animal -1\n\nplant -1\n", "line 2 of x.tree: it is not NAME PARENT: "),
        ("animal\n", "line 1 of x.tree: it is not NAME PARENT: animal"),
        ("animal -1\ndog zero\n", "line 2 of x.tree: it is not NAME PARENT: dog zero"),
        ("animal -1\ndog 0.0\n", "line 2 of x.tree: it is not NAME PARENT: dog 0.0"),
        ("animal -1\ndog " + 5000 * "9", "line 2 of x.tree: it is not NAME PARENT: dog 9999"),
        ("animal -1\ndog -2\n", "line 2 of x.tree: the parent of dog, -2, is not the index of a line above"),
        ("animal -1\ndog 1\n", "line 2 of x.tree: the parent of dog, 1, is not the index of a line above"),
        ("animal 1\ndog 0\n", "line 1 of x.tree: the parent of animal, 1, is not the index of a line above"),
        ("animal -1\ndog 7\n", "line 2 of x.tree: the parent of dog, 7, is not the index of a line above"),
        ("animal -1\ndog 0\nanimal 0\n", "line 3 of x.tree: animal is in line 1 already"),
        ("a -1\nb -1\nc 0\nd 1\ne 0\n", "line 5 of x.tree: e is apart from the other children of 0, from line 3 on"),
        ("a -1\nb 0\nc -1\n", "line 3 of x.tree: c is apart from the other roots, from line 1 on"),
        ("a -1\n" + 300 * "b" + " 0\n", "line 2 of x.tree: this is not a name: 'bbb"),
        ("a\x07 -1\n", r"line 1 of x.tree: this is not a name: 'a\x07'"),
        ("".join(f"{index} -1\n" for index in range(65_537)), "x.tree has more than 65,536 classes"),
    ],
)
def test_what_is_not_a_tree(text: str, fault: str) -> None:
    with pytest.raises(ModelError) as raised:
        parse_tree(text, "x.tree")
    assert raised.value.message.startswith(fault) and len(raised.value.message) < 150
    assert "\n" not in raised.value.message and raised.value.hint


def test_a_long_line_takes_no_time() -> None:
    with pytest.raises(ModelError, match="line 1"):
        parse_tree("a" + 250_000 * " " + "b")


def test_maps() -> None:
    tree = parse_tree(ANIMALS)
    assert parse_map("4\n0\n", tree) == (4, 0)
    for text, fault in (
        ("", "x.map has no classes"),
        ("0\n5\n", "line 2 of x.map: 5 is not the index of one of 5 classes"),
        ("-1\n", "line 1 of x.map: -1 is not the index of one of 5 classes"),
        ("dog\n", "line 1 of x.map: dog is not the index of one of 5 classes"),
        ("1\n2\n1\n", "line 3 of x.map: 1 is in line 1 already"),
    ):
        with pytest.raises(ModelError) as raised:
            parse_map(text, tree, "x.map")
        assert raised.value.message == fault and raised.value.hint


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "animals.tree"
    with pytest.raises(ModelError, match=r"animals\.tree cannot be read as a tree of classes: No such file"):
        read_lines(file, "a tree of classes")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"animals\.tree cannot be read .*: it is not UTF-8"):
        read_lines(file, "a tree of classes")
    file.write_text(" " * (LARGEST_TREE + 1))
    with pytest.raises(ModelError, match=r"animals\.tree cannot be read .*more than the limit"):
        read_lines(file, "a tree of classes")


def test_the_tree_of_yolo9000() -> None:
    """Facts of the file; the names of its classes stand in another one."""
    if not DATA.is_dir():
        pytest.skip("needs Debian's data: apt-get install darknet")
    tree = parse_tree(read_lines(DATA / "9k.tree", "a tree of classes"))
    names = (DATA / "9k.names").read_text().splitlines()
    assert (len(tree.names), len(tree.groups), tree.parents.count(-1), len(names)) == (9418, 1846, 4, 9418)
    assert len(set(range(9418)) - set(tree.parents)) == 7573
    way, index = [], names.index("Norfolk terrier")
    while index >= 0:
        way.append(names[index])
        index = tree.parents[index]
    assert way[0:3] == ["Norfolk terrier", "terrier", "hunting dog"] and "animal" in way and len(way) > 8
    coco = parse_map(read_lines(DATA / "coco9k.map", "a map of classes"), tree)
    assert [names[index] for index in coco[:4]] == ["person", "bicycle", "car", "motorcycle"]
