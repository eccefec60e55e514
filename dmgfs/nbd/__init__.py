"""The disk in an image as an NBD server: nbdkit speaks the protocol (sockets, TLS, limits), its Python plug-in asks this
package. `dmgfs serve` starts it.

    address      where to listen                          in the process of the command
    program      nbdkit: found, checked, started               "
    background   the start                                     "
    settings     what the one process tells the other
    script       what nbdkit loads                        in the process of nbdkit, in the Python it has inside
    server       the calls of nbdkit: errors become errno      "
    stopping     signals: clients are hung up on
    clients      who may write to which shadow                 "
    log          where lines go when there is no terminal      "

Rules that hold here:
- neither FUSE nor trio: nbdkit brings threads, and shadows let several in (`dmgfs.blockshadow`);
- the image is only read; one shadow has one writer; a client that is gone has its changes synced;
- nothing that a client asks for or an image holds ends the server.
"""
