"""MIP: modality- and instance-aware visual prompts for visible-infrared re-identification, on a vision transformer."""
