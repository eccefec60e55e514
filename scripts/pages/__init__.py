"""Manual pages and completions, written from the parsers when a wheel is built. Needs shtab, and nothing of the engine."""
