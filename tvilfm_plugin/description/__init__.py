"""What a description says of a person: word lists, the reading of a text, and the questions that follow from it."""
