"""`completion`: what a shell needs to complete commands, flags and their values.

The script holds all of it, so that the shell starts no Python when a key is pressed.
"""

import dataclasses
import importlib
from collections.abc import Iterator

from trainer import flags
from trainer.config import Config
from trainer.options import Checked, names_in, option
from trainer.process.exit import say_exactly

POSITIONAL = "shell"
_FILES = "@"  # stands for names of files among the values

_VALUES = """\
_lockstep_flags() {
    case "$1" in
%(flags)s
    esac
}

_lockstep_values() {
    case "$1 $2" in
%(values)s
    esac
}
"""

_BASH = """\
# Completion of lockstep for bash. In ~/.bashrc: source <(lockstep completion bash)
%(common)s
_lockstep() {
    local line="${COMP_LINE:0:$COMP_POINT}" command="${COMP_WORDS[1]}" word values keep=""
    word="${line##*[[:space:]]}"
    if [[ $COMP_CWORD -eq 1 ]]; then
        values="%(commands)s"
    elif [[ $word == -*=* ]]; then
        values="$(_lockstep_values "$command" "${word%%%%=*}")"
        keep="${word%%%%=*}=" word="${word#*=}"
        if [[ $values != @ && $word == *,* ]]; then
            keep+="${word%%,*}," word="${word##*,}"
        fi
    elif [[ $word == -* ]]; then
        values="$(_lockstep_flags "$command")"
    else
        values="$(_lockstep_values "$command" "")"
    fi
    # Readline replaces the word behind the last of its word breaks, of which = is one.
    [[ $COMP_WORDBREAKS == *=* ]] && keep="${keep#*=}"
    if [[ $values == @ ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        compopt -o filenames
    else
        mapfile -t COMPREPLY < <(compgen -W "$values" -- "$word")
        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    fi
    COMPREPLY=("${COMPREPLY[@]/#/$keep}")
}
complete -F _lockstep lockstep
"""

_ZSH = """\
# Completion of lockstep for zsh. In ~/.zshrc, after compinit: source <(lockstep completion zsh)
%(common)s
_lockstep() {
    local command="$words[2]" values
    if (( CURRENT == 2 )); then
        values="%(commands)s"
        compadd -- ${=values}
    elif [[ $PREFIX == -*=* ]]; then
        values="$(_lockstep_values "$command" "${PREFIX%%%%=*}")"
        compset -P 1 '*='
        if [[ $values == @ ]]; then
            _files
        else
            compset -P '*,'
            compadd -- ${=values}
        fi
    elif [[ $PREFIX == -* ]]; then
        values="$(_lockstep_flags "$command")"
        compadd -S '' -- ${=values}
    else
        values="$(_lockstep_values "$command" "")"
        if [[ $values == @ ]]; then _files; else compadd -- ${=values}; fi
    fi
}
compdef _lockstep lockstep
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH}


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """lockstep completion bash|zsh: prints a script that completes commands, flags and their values."""

    shell: tuple[str, ...] = option((), "the shell; in its start-up file: source <(lockstep completion bash)",
                                    choices=tuple(_SCRIPTS))

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        problems = super().problems()
        if len(self.shell) != 1:
            problems.append(f"name one shell: {' or '.join(_SCRIPTS)}")
        return problems


def run(options: Options) -> None:
    """Prints the script.

    Args:
        options: Without problems.
    """
    say_exactly(script(options.shell[0]))


def script(shell: str) -> str:
    """The script for a shell.

    Args:
        shell: bash or zsh.

    Returns:
        Its text, which defines functions and names them to the shell.
    """
    kinds: dict[str, tuple[type[Checked], str | None]] = {"train": (Config, None)}
    for name in names_in("commands"):
        module = importlib.import_module(f"trainer.commands.{name}")
        kinds[name] = module.Options, getattr(module, "POSITIONAL", None)
    flag_lines, value_lines = [], []
    for name, (kind, positional) in kinds.items():
        names = [_shown(kind, field.name) for field in dataclasses.fields(kind) if field.name != positional]
        flag_lines.append(f'        {name}) echo "{" ".join([*names, "--flagfile=", "--config=", "--help"])}" ;;')
        value_lines += _value_lines(name, kind, positional)
    common = _VALUES % {"flags": "\n".join(flag_lines), "values": "\n".join(value_lines)}
    return _SCRIPTS[shell] % {"common": common, "commands": " ".join([*kinds, "--help", "--version"])}


def _shown(kind: type[Checked], name: str) -> str:
    """A flag as it is completed: one that takes a value ends in =."""
    return f"--{name}" if flags.kind_of(kind, name) is bool else f"--{name}="


def _value_lines(command: str, kind: type[Checked], positional: str | None) -> Iterator[str]:
    """The lines of a command's flags that have values to complete: those with choices, and names of files."""
    for field in dataclasses.fields(kind):
        choices = " ".join(choice for choice in field.metadata["choices"] if choice)
        is_text = flags.kind_of(kind, field.name) in (str, tuple)
        if choices or is_text:
            flag = "" if field.name == positional else f"--{field.name}"
            yield f'        "{command} {flag}") echo "{choices or _FILES}" ;;'
    yield f'        "{command} --flagfile") echo "{_FILES}" ;;'
    yield f'        "{command} --config") echo "{" ".join(flags.config_names())}" ;;'
