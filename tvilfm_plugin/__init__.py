"""Text-enhanced visible-infrared person re-identification as a plugin to fast-reid.

Importing the package applies the host's compatibility fixes, registers everything and does nothing else.
"""

from tvilfm_plugin import compat

compat.apply()
