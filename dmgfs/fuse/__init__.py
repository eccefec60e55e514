"""The mount: pyfuse3 handlers over an overlay, on one trio thread that never waits for a disk or a decoder.

boundary   no exception leaves a handler but as an errno
driver     runs an operation of the overlay; what is not in memory is fetched by the pool
pool       our own worker threads: decoding, disk, single flight, two priorities
prefetch   sequential readers find their next chunks decoded
operations one short method per FUSE request
session    from options to a mount that answers, and back to an unmounted directory
"""
