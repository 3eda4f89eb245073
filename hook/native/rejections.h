// Rejected packets, counted by client: a flood costs bounded memory and a bounded number of events.
#ifndef LEASEHOLD_REJECTIONS_H
#define LEASEHOLD_REJECTIONS_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "json_line.h"
#include "position_index.h"

namespace leasehold {

/// Why a packet was rejected. `kDoubt` is everything that should not have come about, an exception for one.
/// `kElsewhere` is what a report makes of `kUnknown` where the client has a reservation on another subnet.
enum class Reason : uint32_t { kUnknown, kWithdrawn, kDoubt, kElsewhere };
constexpr size_t kReasons = 3;  // that are counted

/// As it stands in events and answers.
const char* name_of(Reason reason);

/// What was rejected of one client on one subnet for one reason.
struct Rejection {
    uint32_t subnet_id;
    Reason reason;
    uint8_t message;  // DHCP message type of the last (RFC 2132, section 9.6); 0 is not known
    uint64_t count;
    int64_t first_ms;
    int64_t last_ms;
};

/// Counts since the last report, for up to `capacity` (subnet, MAC, reason); what comes after is summed by (subnet,
/// reason). What a report has told is remembered for a while, for as many clients again. Thread-safe. While nobody
/// drains it, count() allocates only at the first overflow of a subnet.
class RejectionTable {
public:
    using ReservedElsewhere = std::function<bool(uint32_t subnet_id, uint64_t mac)>;

    /// `elsewhere` is asked when a report begins, once for each unknown client.
    explicit RejectionTable(size_t capacity, ReservedElsewhere elsewhere = nullptr);

    /// Keeps what is counted, but moves the clients that no longer fit to their subnet's sum.
    void resize(size_t capacity);

    /// `mac` kNoMac is a client without an Ethernet address; it goes to the subnet's sum.
    void count(uint32_t subnet_id, uint64_t mac, Reason reason, int64_t now_ms, uint8_t message = 0);

    /// Writes client.rejected lines, numbered from `next_sequence`, as many as surely fit. The first call closes the
    /// window and begins its report, further ones go on with it, and one that writes nothing ends it: so a caller who
    /// repeats until then gets one window, however fast the next one fills.
    Drained drain(char* out, size_t capacity, uint64_t next_sequence);

    /// What is remembered of one client: the present window, and what earlier reports told of it.
    std::vector<Rejection> recent(uint64_t mac);

    /// Packets counted since the start, by Reason.
    std::array<uint64_t, kReasons> totals() const;

private:
    struct Client {
        uint64_t mac;
        uint32_t subnet_id;
        Reason reason;
        bool operator==(const Client& other) const {
            return mac == other.mac && subnet_id == other.subnet_id && reason == other.reason;
        }
        bool operator!=(const Client& other) const {
            return !(*this == other);
        }
    };
    struct Fold {
        uint64_t operator()(const Client& client) const {
            const uint64_t rest = (uint64_t{client.subnet_id} << 2) | static_cast<uint64_t>(client.reason);
            return client.mac ^ (rest * UINT64_C(0xFF51AFD7ED558CCD));
        }
    };
    struct Tally {
        Client client;
        uint64_t count;
        int64_t first_ms;
        int64_t last_ms;
        uint8_t message;
    };

    auto client_at() const {
        return [this](uint32_t position) { return clients_[position].client; };
    }
    auto told_client_at() const {
        return [this](uint32_t position) { return told_[position].client; };
    }
    void add(const Tally& tally);
    Tally judged(Tally tally) const;
    void remember(const Tally& tally);
    static void merge(Tally& into, const Tally& tally);

    mutable std::mutex mutex_;
    std::mutex reporter_;  // held for a whole drain
    size_t capacity_;
    std::vector<Tally> clients_;
    PositionIndex<Client, Fold> by_client_;
    std::map<uint64_t, Tally> sums_;  // by subnet and reason
    std::array<uint64_t, kReasons> totals_{};
    std::vector<Tally> report_;  // the reporter's: what is not yet written, the first at the end
    bool reporting_ = false;     // the reporter's: a report has begun, and its end is not yet told
    ReservedElsewhere elsewhere_;
    std::vector<Tally> told_;  // the reporter's: a ring of what earlier reports told, the newest before next_told_
    PositionIndex<Client, Fold> by_told_client_;
    size_t next_told_ = 0;
};

}  // namespace leasehold

#endif
