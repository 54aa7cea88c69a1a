"""Graph -> Graph and Graph -> schedule, one file each: what may be changed about a program, never where bytes lie."""
