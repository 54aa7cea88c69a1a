"""Strategies and contract suites, usable by plug-ins too."""
