"""Every config key that the plugin adds to fast-reid's: one table, from which defaults, checks and docs/config.md are made."""
