// Which packets of a managed subnet go on to Kea. Pure: the whole rule in one place, and tested as a table.
#ifndef LEASEHOLD_POLICY_H
#define LEASEHOLD_POLICY_H

#include "leasehold.h"
#include "store.h"

namespace leasehold {

/// The DHCP messages that the rule tells apart.
enum class Message { kRequest, kRelease, kOther };

enum class Verdict {
    kServe,   // Kea answers as it will
    kRefuse,  // Kea answers NAK; counted as a rejection
    kDrop,    // no answer; counted as a rejection
};

/// A client that was never known here gets no answer unless this server is the only authority (LH_NAK): another server
/// may be its own. One whose reservation was withdrawn here gets a NAK to its REQUEST, so that it gives the address up
/// at its next renewal and does not keep it to the end of its lease. Giving an address back (RELEASE) harms nobody.
inline Verdict judge(lh_unknown_clients mode, Standing standing, Message message) {
    if (standing == Standing::kReserved || mode == LH_ALLOW) {
        return Verdict::kServe;
    }
    if (standing == Standing::kWithdrawn && message == Message::kRelease) {
        return Verdict::kServe;
    }
    const bool answers = mode == LH_NAK || (mode == LH_REJECT && standing == Standing::kWithdrawn);
    return answers && message == Message::kRequest ? Verdict::kRefuse : Verdict::kDrop;
}

}  // namespace leasehold

#endif
