"""Pictures of what was measured: drawn from the evaluator's own rankings, never from a second computation."""
