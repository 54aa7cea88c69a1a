"""What a program is, as plain data: Step (what the user gives), Graph (what will run), Trace (what did run)."""
