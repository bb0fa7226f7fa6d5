"""One way in and out for every kind of file."""
