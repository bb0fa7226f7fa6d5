"""What is wrong with a config, in one sentence."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError, KeyError):
    """A config that cannot be meant: the message names the file (and the line), the fact and the choices.

    It is a KeyError as well, as the host's error for an unknown key is.
    """

    __str__ = Exception.__str__  # a KeyError would show the quoted form


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean X?" with the nearest known word, else ""."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    if not near:
        same_end = [one for one in known if one.rpartition(".")[2] == word.rpartition(".")[2]]
        near = same_end if len(same_end) == 1 else []
    return f" Did you mean {near[0]}?" if near else ""
