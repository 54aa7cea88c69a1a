"""Draws results: terminal, HTML, Perfetto. Computes nothing."""
