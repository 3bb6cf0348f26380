"""Run a command without any network, this machine's own address aside (Linux):

python tests/without_network.py make test
"""

import fcntl
import os
import socket
import struct
import sys

GET_FLAGS, SET_FLAGS, UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h


def main(arguments: list[str]) -> None:
    if arguments[0] != "--inside":
        again = [sys.executable, __file__, "--inside", *arguments]
        os.execvp("unshare", ["unshare", "--map-root-user", "--net", *again])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, GET_FLAGS, asked))
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | UP))
    os.execvp(arguments[1], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
