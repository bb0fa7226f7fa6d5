"""`python -m tvilfm_plugin.cli`: the same as `tvilfm`."""

from tvilfm_plugin.cli.main import entry

if __name__ == "__main__":
    entry()
