"""The embedded benchmark: draw people, photograph and caption them, write a SYSU-MM01, RegDB or LLCM tree."""

from tvilfm_plugin.synthetic.people import Person, draw_people
from tvilfm_plugin.synthetic.writer import Spec, draw_identities, make_synthetic

__all__ = ["Person", "Spec", "draw_identities", "draw_people", "make_synthetic"]
