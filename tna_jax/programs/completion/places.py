"""What tyro's completion scripts leave out: runs and files that are given by their places, as in `tna barrier RUN`."""

from tna_jax.programs.cli import arguments
from tna_jax.programs.cli.catalog import PROGRAMS, options_of

BASH = """
# What stands at the place of a run or a file is completed as one.
_tna_places() {
  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"
  _tyro_tna
  if [[ $COMP_CWORD -ge 2 && $word != -* && ( $COMP_CWORD -eq 2 || $before != -* ) ]]; then
    case "${COMP_WORDS[1]}" in PROGRAMS) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;; esac
  fi
}
complete -o filenames -F _tna_places tna
"""
ZSH = """
# What stands at the place of a run or a file is completed as one.
if [[ CURRENT -gt 2 && ${words[CURRENT]} != -* && ( CURRENT -eq 3 || ${words[CURRENT-1]} != -* ) && ${words[2]} == (PROGRAMS) ]]; then
  _files
else
  _tyro_tna "$@"
fi
"""
FISH = """
# What stands at the place of a run or a file is completed as one.
function _tna_places
    set -l words (commandline -opc)
    string match -q -- '-*' (commandline -ct); and return 1
    test (count $words) -gt 1; and string match -qr -- '^(PROGRAMS)$' $words[2]; or return 1
    test (count $words) -eq 2; or not string match -q -- '-*' $words[-1]
end
complete --command tna --force-files --condition _tna_places
"""


def with_places(script: str, shell: str) -> str:
    """Returns a script of tyro's that completes files at the places of files too."""
    names = [
        name
        for name in PROGRAMS
        if any(
            option.metavar and not (option.choices or option.known) for option in arguments.options(options_of(name))
        )
    ]
    more = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].replace("PROGRAMS", "|".join(names))
    return (script.rstrip("\n").removesuffix('_tyro_tna "$@"') if shell == "zsh" else script) + more
