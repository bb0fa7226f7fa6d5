"""Everything that knows fast-reid: what it needs before its import, repairs of its public functions, launchers, scripts.

`importing` and `presence` need nothing but Python; `devices` knows torch only, and the data side may use it too.
"""
