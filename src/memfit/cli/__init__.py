"""One file per command: arguments in, api call, report out."""
