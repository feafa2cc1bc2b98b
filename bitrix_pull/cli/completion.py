"""``bitrix-pull completion``: what a shell completes, written down once, so that it starts no Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

PROGRAM = "bitrix-pull"


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@dataclass(slots=True, frozen=True)
class Command:
    """What can follow a command.

    Attributes:
        about: What it does, in a line.
        options: Its options, each with the values that it takes, where these are known.
    """

    about: str
    options: Mapping[str, Sequence[str]]


def script(shell: Shell, commands: Mapping[str, Command]) -> str:
    """Return what a shell must read to complete commands, their options and the values of these."""
    if shell is Shell.FISH:
        return _fish(commands)
    start = "autoload -U +X bashcompinit && bashcompinit\n" if shell is Shell.ZSH else ""
    return start + _bash(commands)


def _bash(commands: Mapping[str, Command]) -> str:
    def case(pattern: str, words: Sequence[str]) -> str:
        return f'    "{pattern}") COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")); return;;'

    values = [
        case(f"{name} {option}", choices)
        for name, command in commands.items()
        for option, choices in command.options.items()
        if choices
    ]
    options = [case(name, list(command.options)) for name, command in commands.items()]
    first = " ".join([*commands, "--help", "--version"])
    return "\n".join(
        [
            "_bitrix_pull() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '  local command="${COMP_WORDS[1]}"',
            "  COMPREPLY=()",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=($(compgen -W "{first}" -- "$word")); return',
            "  fi",
            '  case "$command $before" in',
            *values,
            "  esac",
            '  [[ "$word" == -* ]] || return 0',
            '  case "$command" in',
            *options,
            "  esac",
            "}",
            f"complete -o default -F _bitrix_pull {PROGRAM}",
            "",
        ]
    )


def _fish(commands: Mapping[str, Command]) -> str:
    lines = [f"complete -c {PROGRAM} -n __fish_use_subcommand -l version -d 'Show the version.'"]
    for name, command in commands.items():
        about = command.about.replace("\\", "").replace("'", "\\'")
        lines.append(f"complete -c {PROGRAM} -f -n __fish_use_subcommand -a {name} -d '{about}'")
        for option, choices in command.options.items():
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            takes = f" -x -a '{' '.join(choices)}'" if choices else ""
            lines.append(f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {name}' {flag}{takes}")
    return "\n".join([*lines, ""])
