"""What crosses a network, recorded as tcpdump would.

Not by tcpdump itself: it gives up its privileges at its start, which needs more users than a sandbox of an ordinary
user's has.
"""

import socket
import struct
import threading
from pathlib import Path

from lab.dhcp import Message, parse_frame
from lab.namespace import Namespace

# packet(7); the numbers are those of linux/if_packet.h, which Python does not name.
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_PROMISC = 1
# socket(7): the kernel's own instant of each frame, CLOCK_REALTIME; a number of asm-generic/socket.h.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
_ETH_P_IP = 0x0800

# The pcap file format: magic, version 2.4, time zone, accuracy, longest frame, link type Ethernet.
_PCAP_HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
_POLL_S = 0.1


class Capture:
    """Made by `Lab.capture`; it records DHCP from then on until `stop`. `path` is a pcap file of it."""

    def __init__(self, switch: Namespace, network: str, path: Path) -> None:
        self.path = path
        self._messages: list[tuple[int, Message]] = []
        self._socket = switch.within(lambda: _listen(network))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._record, name=f"capture-{network}")
        self._thread.start()

    def stop(self) -> None:
        """End the recording; harmless when it has ended."""
        self._stopping.set()
        self._thread.join()

    def messages(self) -> list[Message]:
        """The DHCP messages so far, in their order on the wire."""
        return [message for _, message in self.timed_messages()]

    def timed_messages(self) -> list[tuple[int, Message]]:
        """The same, each with the instant when the switch had it, in nanoseconds since the Unix epoch."""
        return list(self._messages)

    def _record(self) -> None:
        with self._socket, self.path.open("wb") as file:
            file.write(_PCAP_HEADER)
            while not self._stopping.is_set():
                try:
                    frame, extra, _, _ = self._socket.recvmsg(65535, socket.CMSG_SPACE(_TIMESPEC.size))
                except TimeoutError:
                    continue
                message = parse_frame(frame)
                if message is not None:
                    seconds, nanoseconds = _TIMESPEC.unpack(extra[0][2])
                    file.write(struct.pack("=IIII", seconds, nanoseconds // 1000, len(frame), len(frame)) + frame)
                    file.flush()
                    self._messages.append((seconds * 1_000_000_000 + nanoseconds, message))


def _listen(bridge: str) -> socket.socket:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
    link.bind((bridge, _ETH_P_IP))
    # A bridge hands up what it only passes on from port to port while somebody asks for everything.
    everything = struct.pack("iHH8s", socket.if_nametoindex(bridge), _PACKET_MR_PROMISC, 0, b"")
    link.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, everything)
    link.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    link.settimeout(_POLL_S)
    return link
