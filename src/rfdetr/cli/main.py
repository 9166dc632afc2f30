"""The command line: parse, dispatch, exit code."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rfdetr.cli.commands import COMMANDS, Command
from rfdetr.cli.settings import add_flags, fields_of, flag_of, read_configs
from rfdetr.config.base import suggestion
from rfdetr.errors import ConfigError, RFDETRError
from rfdetr.version import __version__


class Parser(argparse.ArgumentParser):
    """Raises what argparse would print below pages of usage, and takes no abbreviations: they hide typing errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    parser = Parser(prog="rfdetr", description="Train, evaluate and run RF-DETR detectors.")
    parser.add_argument("--version", action="version", version=f"rfdetr {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        verb = verbs.add_parser(name, help=command.summary, description=command.summary)
        for switch, meaning in command.switches.items():
            verb.add_argument(flag_of(switch), action="store_true", help=meaning)
        add_flags(verb, command.configs)
    return parser


def parse(argv: Sequence[str] | None) -> tuple[Command, dict[str, Any], list[str]]:
    """The command, its flags, and what is wrong with them: those that it does not have, with the nearest one.

    Raises:
        ConfigError: an argument too many.
    """
    arguments, unknown = build_parser().parse_known_args(argv)
    flags = vars(arguments)
    command = COMMANDS[flags.pop("command")]
    known = [flag_of(name) for name in (*fields_of(command.configs), *command.switches)]
    wrong = [argument.split("=", 1)[0] for argument in unknown if argument.startswith("-")]
    if unknown and not wrong:
        raise ConfigError(f"unexpected argument {unknown[0]!r} (see rfdetr --help)")
    return command, flags, [f"{flag}: no such flag.{suggestion(flag, known)}" for flag in wrong]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    0: done; 1: what was checked has errors; 2: a mistake of the user, said in one message; 130: interrupted.
    """
    try:
        command, flags, problems = parse(argv)
        switches = {name: flags.pop(name) for name in command.switches}
        return command.run(*read_configs(flags, command.configs, command.further, problems), **switches) or 0
    except RFDETRError as error:
        print(f"rfdetr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rfdetr: interrupted", file=sys.stderr)
        return 130


def run() -> None:
    """Entry point of the `rfdetr` script."""
    sys.exit(main())
