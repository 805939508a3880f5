"""`ensemble completion`: print a script that completes commands, flags and names of runs in a shell."""

from __future__ import annotations

from typing import Annotated

import typer

from ensemble.cli.terminal import console

# Each calls `ensemble completion candidates -- WORDS`; where nothing is found, the shell completes file names.
SCRIPTS = {
    "bash": """_ensemble_completion() {
    local IFS=$'\\n'
    COMPREPLY=($(ensemble completion candidates -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o bashdefault -o default -F _ensemble_completion ensemble""",
    "zsh": """#compdef ensemble
_ensemble() {
    local -a found
    found=("${(@f)$(ensemble completion candidates -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( $#found )); then compadd -- $found; else _files; fi
}
compdef _ensemble ensemble""",
    "fish": """function __ensemble_completion
    set -l words (commandline -opc)
    ensemble completion candidates -- $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c ensemble -a '(__ensemble_completion)'""",
}
INSTALL = {
    "bash": 'eval "$(ensemble completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(ensemble completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "ensemble completion fish > ~/.config/fish/completions/ensemble.fish",
}


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish", metavar="SHELL")],
    words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
) -> int:
    """Print a script that completes commands, flags and names of runs in bash, zsh or fish.

    bash: eval "$(ensemble completion bash)" in ~/.bashrc. zsh: the same with zsh in ~/.zshrc, after compinit. fish:
    ensemble completion fish > ~/.config/fish/completions/ensemble.fish
    """
    from folds.errors import unknown_name

    if shell == "candidates":
        from ensemble.cli.terminal.commands import COMMANDS
        from ensemble.cli.terminal.completion import candidates

        found = candidates(words or [""], list(COMMANDS))
        console.result("\n".join(found), {"candidates": found})
        return 0
    if shell not in SCRIPTS:
        raise unknown_name("shell", shell, list(SCRIPTS))
    console.result(SCRIPTS[shell], {"shell": shell, "script": SCRIPTS[shell]})
    console.next_step(INSTALL[shell])
    return 0
