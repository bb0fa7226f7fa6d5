"""What the paper reports, and what it does not: tables and curves from stored evaluations."""
