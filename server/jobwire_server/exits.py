"""Exit codes, as in the table of `jobwire --help`, which stands in jobwire_client.cli.exits; a test compares them."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
"""Of `fsck`, whose 1 says that something is broken: the store cannot be read. Of `health`: nobody serves there."""
EXIT_INTERRUPTED = 130
"""As a shell has it for a program that Ctrl-C ended."""
