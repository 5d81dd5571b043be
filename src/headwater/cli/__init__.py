"""The command line, one file a command: each parses its options, calls the API and prints the result."""
