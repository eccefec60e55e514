"""Programs that people use, at work inside of a mount, each with its own check of what it made. One program per file; each
has a function that gets a `Home` and raises AssertionError, or CalledProcessError when the program itself complains."""
