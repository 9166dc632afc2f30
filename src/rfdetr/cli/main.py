"""The command line: parse, dispatch, exit code."""

import argparse
import sys
from collections.abc import Sequence

from rfdetr.cli.commands import COMMANDS
from rfdetr.cli.settings import add_flags, read_configs
from rfdetr.errors import RFDETRError
from rfdetr.version import __version__


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rfdetr", description="Train, evaluate and run RF-DETR detectors.")
    parser.add_argument("--version", action="version", version=f"rfdetr {__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in COMMANDS.items():
        verb = verbs.add_parser(name, help=command.summary, description=command.summary)
        for switch, meaning in command.switches.items():
            verb.add_argument(f"--{switch}", action="store_true", help=meaning)
        add_flags(verb, command.configs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 2: a mistake of the user, said in one message; 130: interrupted."""
    flags = vars(build_parser().parse_args(argv))
    command = COMMANDS[flags.pop("command")]
    switches = {name: flags.pop(name) for name in command.switches}
    try:
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
