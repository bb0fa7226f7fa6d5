"""What is timed, and how: README.md."""
