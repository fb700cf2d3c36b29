"""`python -m jobwire_server` is the `jobwire` command."""

from jobwire_server.cli import main

main()
