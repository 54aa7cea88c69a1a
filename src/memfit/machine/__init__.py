"""The memory that a program runs in: devices and their capacities, this machine, its C library."""
