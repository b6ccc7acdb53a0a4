"""The command line: programs by name, options, parsing, errors, progress."""
