// An answer as octets.
#ifndef LEASEHOLD_PACK_H
#define LEASEHOLD_PACK_H

#include <dhcp/pkt4.h>

namespace leasehold {

/// Writes the answer into its buffer, octet for octet as Kea's Pkt4::pack() does, which first makes a copy of every
/// option to see whether it must be split (RFC 3396): two thirds of its cost, which is more than all that this library
/// adds to an exchange. False, and nothing is written, where one must be split or anything else is out of the ordinary.
bool pack(isc::dhcp::Pkt4& answer);

}  // namespace leasehold

#endif
