"""The command line: one file per command (arguments in, api call, report out); `main` alone prints and exits."""
