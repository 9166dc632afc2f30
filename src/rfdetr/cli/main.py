"""The command line: parse, dispatch, exit code."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rfdetr.cli.commands import COMMANDS, Command
from rfdetr.cli.settings import add_flags, read_configs
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
            verb.add_argument(f"--{switch}", action="store_true", help=meaning)
        add_flags(verb, command.configs)
    return parser


def parse(argv: Sequence[str] | None) -> tuple[Command, dict[str, Any]]:
    """The command and its flags.

    Raises:
        ConfigError: a flag that the command does not have, with the nearest one.
    """
    arguments, unknown = build_parser().parse_known_args(argv)
    flags = vars(arguments)
    command = COMMANDS[flags.pop("command")]
    if unknown:
        known = [f"--{name.replace('_', '-')}" for config in command.configs for name in config.model_fields]
        flag = unknown[0].split("=", 1)[0]
        if not flag.startswith("-"):
            raise ConfigError(f"unexpected argument {flag!r} (see rfdetr --help)")
        raise ConfigError(f"{flag}: no such flag.{suggestion(flag, known)}")
    return command, flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 2: a mistake of the user, said in one message; 130: interrupted."""
    try:
        command, flags = parse(argv)
        switches = {name: flags.pop(name) for name in command.switches}
        command.run(*read_configs(flags, command.configs), **switches)
    except RFDETRError as error:
        print(f"rfdetr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rfdetr: interrupted", file=sys.stderr)
        return 130
    return 0


def run() -> None:
    """Entry point of the `rfdetr` script."""
    sys.exit(main())
