// Where this server can hear guests, for whoever asks whether it serves.
#ifndef LEASEHOLD_INTERFACES_H
#define LEASEHOLD_INTERFACES_H

#include <string>

namespace leasehold {

/// `interfaces` of the answer to `leasehold-status`, as JSON; see the hook's README. Asks the kernel, since Kea knows
/// of interfaces what it found when it was configured. Kea's main thread only, with the server configured. Throws
/// std::system_error.
std::string describe_interfaces();

}  // namespace leasehold

#endif
