// What this server knows of one client, for whoever asks why it has, or has not, an address.
#ifndef LEASEHOLD_CLIENT_H
#define LEASEHOLD_CLIENT_H

#include <cstdint>
#include <string>

namespace leasehold {

/// The arguments of the answer to `leasehold-client-get`, as JSON; see the hook's README. Kea's main thread only, with
/// the server configured.
std::string describe_client(uint64_t mac);

}  // namespace leasehold

#endif
