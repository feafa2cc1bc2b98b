"""``bitrix-pull completion``: what a shell completes, written down once, so that it starts no Python."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
        commands: Commands of its own, if it is a group of them.
    """

    about: str
    options: Mapping[str, Sequence[str]]
    commands: Mapping[str, "Command"] = field(default_factory=dict[str, "Command"])


def script(shell: Shell, commands: Mapping[str, Command]) -> str:
    """Return what a shell must read to complete commands, their options and the values of these."""
    if shell is Shell.FISH:
        return _fish(commands)
    start = "autoload -U +X bashcompinit && bashcompinit\n" if shell is Shell.ZSH else ""
    return start + _bash(commands)


def _bash(commands: Mapping[str, Command]) -> str:
    groups = {name: command for name, command in commands.items() if command.commands}
    full = {name: command for name, command in commands.items() if not command.commands}
    for name, group in groups.items():
        full |= {f"{name} {each}": command for each, command in group.commands.items()}

    def case(pattern: str, words: Iterable[str]) -> str:
        return f'    "{pattern}") COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")); return;;'

    first = " ".join([*commands, "--help", "--version"])
    second = [case(f"{name} 2", [*group.commands, *group.options]) for name, group in groups.items()]
    longer = [f'    "{name}") command="$command ${{COMP_WORDS[2]}}";;' for name in groups]
    values = [
        case(f"{name} {option}", choices)
        for name, command in full.items()
        for option, choices in command.options.items()
        if choices
    ]
    options = [case(name, command.options) for name, command in full.items()]
    return "\n".join(
        [
            "_bitrix_pull() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '  local command="${COMP_WORDS[1]}"',
            "  COMPREPLY=()",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=($(compgen -W "{first}" -- "$word")); return',
            "  fi",
            '  case "$command $COMP_CWORD" in',
            *second,
            "  esac",
            '  case "$command" in',
            *longer,
            "  esac",
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
        lines += _fish_command(name, command, before="__fish_use_subcommand", after=_seen(name))
        chosen = f"{_seen(name)}; and {_seen(*command.commands)}"
        for each, own in command.commands.items():
            lines += _fish_command(
                each,
                own,
                before=chosen.replace("; and ", "; and not "),
                after=f"{_seen(name)}; and {_seen(each)}",
            )
    return "\n".join([*lines, ""])


def _seen(*names: str) -> str:
    return f"__fish_seen_subcommand_from {' '.join(names)}"


def _fish_command(name: str, command: Command, *, before: str, after: str) -> Iterator[str]:
    """Yield the lines of a command: what must have been typed for it, and for its options."""
    about = command.about.replace("\\", "").replace("'", "\\'")
    yield f"complete -c {PROGRAM} -f -n '{before}' -a {name} -d '{about}'"
    for option, choices in command.options.items():
        flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
        takes = f" -x -a '{' '.join(choices)}'" if choices else ""
        yield f"complete -c {PROGRAM} -n '{after}' {flag}{takes}"
