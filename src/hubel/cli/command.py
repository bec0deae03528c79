"""How the commands show their help: options in groups, and the same words for values everywhere."""

from __future__ import annotations

import re
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

from hubel.validation import reason

HELP = {"help_option_names": ["-h", "--help"]}
"""Settings of the contexts of all commands."""

RUNNING, OUTPUT, COLLECTIONS = "How the network runs", "Output", "Large collections"
"""Groups of options that several commands have."""

_VALUES = {
    "int": "N",
    "int range": "N",
    "float": "X",
    "float range": "X",
    "str": "TEXT",
    "path": "PATH",
    "file": "FILE",
    "directory": "DIR",
    "list[str]": "TEXT",
    "list[int]": "N",
    "list[int] range": "N",
    "list[float]": "X",
    "list[path]": "PATH",
}


def _value(shown: str) -> str:
    """``--top N`` for ``--top <int range>``, ``--format a|b`` for ``--format <a|b>``."""
    return re.sub(r" ?<([^<>]*)>", lambda found: f" {_VALUES.get(found[1].lower(), found[1])}", shown)


class Command(TyperCommand):
    """A command whose help lists the options in the groups that their ``rich_help_panel`` names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; what is wrong with a value is said in our words, not those of a library."""
        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            if errors := getattr(error.__cause__, "errors", None):
                error.message = reason(errors()[0])
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, the options without a group, and the groups in the order of their first option."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is None:
                continue
            name, text = record
            if parameter.param_type_name == "argument":
                # What it is called says what it is; the type would be one more word.
                groups["Arguments"].append((_argument(parameter, name.split(" <")[0]), text))
            else:
                group = getattr(parameter, "rich_help_panel", None) or "Options"
                groups.setdefault(group, []).append((_value(name), text))
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS] SOURCE...``: brackets around what can be left out, nothing around the rest."""
        pieces = [self.options_metavar] if self.options_metavar else []
        for parameter in self.get_params(ctx):
            pieces += [_argument(parameter, piece) for piece in parameter.get_usage_pieces(ctx)]
        return pieces


def _argument(parameter: Any, name: str) -> str:
    if parameter.metavar is None:
        name = name.upper()
    name = re.sub(r"\{(.+)\}", r"\1", name)
    return re.sub(r"^\[\[(.+)\]\]", r"[\1]", name)


class Group(TyperGroup):
    """A group whose help shows the first sentence of each command in full; alone, it prints its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the help if there is nothing else, which is a question and not wrong usage: the exit status is 0."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their summaries, wrapped instead of cut off."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=500)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
