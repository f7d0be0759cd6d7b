"""The command line of `create_endpoint.py`: which commands there are, and which option is for which of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from positive_number import positive_number

SETTINGS = Path(__file__).resolve().parent / "settings.toml"
PLAN, APPLY = "plan", "apply"
COMMANDS = (PLAN, APPLY, "status", "invoke", "rollback", "delete", "logs", "transform", "policies")
CHANGING = (APPLY, "rollback", "delete", "transform")
# What is under way in AWS when a command is interrupted, and what to do about it.
INTERRUPTED = {
    APPLY: "what is under way in AWS goes on; the same command again takes it up",
    "delete": "what is under way in AWS goes on; the same command again takes it up",
    "rollback": "what is under way in AWS goes on: `create_endpoint.py status` says how it is",
    "transform": "a job that was started goes on and costs: `aws sagemaker stop-transform-job` ends it",
}
_TAKES = {"invoke": 1, "transform": 2}
# An option that would be ignored without a word is refused.
_OPTIONS_OF = {
    "everything": ("delete",),
    "logs": ("delete",),
    "create": ("policies",),
    "follow": ("logs",),
    "output": ("invoke",),
    "dry_run": (PLAN, *CHANGING, "policies"),
}


def parse(argv: list[str] | None, description: str | None = None) -> argparse.Namespace:
    """Read the command line; what is wrong with it ends with exit code 2."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default=APPLY, choices=COMMANDS, metavar="command", help=", ".join(COMMANDS))
    parser.add_argument("what", nargs="*", help="invoke: a file or a URL; transform: from and to, as s3://bucket/prefix/")
    parser.add_argument("--settings", type=Path, default=SETTINGS, metavar="FILE", help="default: deploy/settings.toml")
    parser.add_argument("--profile", help="of ~/.aws/config; default: AWS_PROFILE")
    parser.add_argument("--region", help="default: AWS_REGION, AWS_DEFAULT_REGION, the profile's")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, for machines")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--local", action="store_true", help="serve on this machine instead")
    parser.add_argument("--everything", action="store_true", help="delete: role, bucket, repository and log too")
    parser.add_argument("--logs", action="store_true", help="delete: the container's log too")
    parser.add_argument("--create", action="store_true", help="policies: make the deployer's, too")
    parser.add_argument("--follow", action="store_true", help="logs: until Ctrl-C")
    parser.add_argument("--minutes", type=positive_number, default=60.0, help="logs: so many minutes back (default 60)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="invoke: where the answer goes")
    arguments = parser.parse_intermixed_args(argv)
    takes = _TAKES.get(arguments.command, 0)
    if len(arguments.what) != takes:
        parser.error(f"{arguments.command} takes {takes or 'no'} argument{'s' if takes > 1 else ''}, not {len(arguments.what)}")
    for option, commands in _OPTIONS_OF.items():
        if getattr(arguments, option) and arguments.command not in commands:
            parser.error(f"--{option.replace('_', '-')} is for {', '.join(commands)}, not for {arguments.command}")
    if arguments.local and arguments.command != APPLY:
        parser.error(f"--local serves on this machine until Ctrl-C: it does not go with {arguments.command}")
    if arguments.json and (arguments.local or arguments.follow):
        parser.error("--json prints one object at the end, and --local and --follow have none")
    if arguments.local and arguments.dry_run:
        parser.error("--local changes nothing in AWS: it has no --dry-run")
    return arguments
