"""Long exercises of a mounted file system: random operations beside a real directory, random file contents beside a
bytearray. Used by tests/90_live for a moment and by scripts/test-random for as long as one likes."""
