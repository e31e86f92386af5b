"""The command line. Thin: each command imports what it needs when it runs."""
