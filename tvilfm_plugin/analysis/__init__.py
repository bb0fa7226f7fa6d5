"""What is learnt from stored evaluations: statistics, comparisons, rules, thresholds, robustness, the tables of the paper."""
