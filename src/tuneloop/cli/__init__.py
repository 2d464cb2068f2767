"""The command line: one file a command; parse, call, print. Heavy imports happen inside the commands."""
