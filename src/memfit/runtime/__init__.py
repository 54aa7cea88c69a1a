"""What really holds bytes: virtual ranges, blocks, the key/value cache. No framework in here."""
