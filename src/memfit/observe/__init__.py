"""What a running process does: recorders and comparisons; the framework hook is passed in."""
