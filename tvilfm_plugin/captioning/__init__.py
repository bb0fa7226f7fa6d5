"""MSC, modality-specific captions: captioners, colour filter, pairs, fine-tuning, rephrasing, generation and audit."""
