"""The table of architectures agrees with the families, which are imported only when they are asked for."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import hubel.models
from hubel.models.registry import architecture, list_models, relatives, task_of
from hubel.weights.key_mapping import all_rules, rules_for


def test_table_and_families_agree() -> None:
    found = [module.name for module in pkgutil.walk_packages(hubel.models.__path__, "hubel.models.")]
    families = [module for module in map(importlib.import_module, found) if "ARCHITECTURES" in vars(module)]
    defined = {arch.name: (arch.task, family) for family in families for arch in family.ARCHITECTURES}
    assert sorted(list_models()) == sorted(defined)
    for name, (task, family) in defined.items():
        assert task_of(name) == task
        assert architecture(name) in family.ARCHITECTURES
        assert relatives(name) == [other for other in list_models() if defined[other][1] is family]


def test_every_key_rule_is_reached_by_an_architecture() -> None:
    reached = {id(rules) for name in list_models() for rules in rules_for(name)}
    assert reached == {id(rules) for rules in all_rules()}


@pytest.mark.parametrize("weights", [False, True])
def test_one_family_and_its_key_rules_are_imported(weights: bool) -> None:
    program = f"""
import sys
import torch
from hubel.models import create_model
from hubel.weights.key_mapping import rename
create_model("resnet18")
if {weights}:
    rename({{"layer1.0.conv1.weight": torch.zeros(1)}}, "resnet18")
print(*[name for name in sys.modules if name.startswith(("hubel.models.", "hubel.weights.key_rules."))])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    families = [
        name for name in imported if name.startswith(("hubel.models.classification.", "hubel.models.detection"))
    ]
    assert families == ["hubel.models.classification.resnet"]
    assert "hubel.models.localization" not in imported
    rules = {name.rpartition(".")[2] for name in imported if "key_rules" in name}
    assert rules == ({"resnet"} if weights else set())
