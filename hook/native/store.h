// The reservations that this host serves, and the clients that lately had one.
//
// Knows nothing of Kea. Many packet threads read while one thread changes: a reader waits for a change of its own
// subnet's set only, never for a file, the network or Python.
#ifndef LEASEHOLD_STORE_H
#define LEASEHOLD_STORE_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "position_index.h"

namespace leasehold {

/// What a subnet knows of a client.
enum class Standing { kUnknown, kWithdrawn, kReserved };

/// A MAC is the 48-bit integer of its octets in network order, an address the 32-bit integer in host order.
struct Reservation {
    uint64_t mac;
    uint32_t address;
    std::string hostname;

    bool operator!=(const Reservation& other) const {
        return mac != other.mac || address != other.address || hostname != other.hostname;
    }
};

/// A reservation on its way into the store; the hostname belongs to the caller, holds no NUL, and "" is none.
struct NewReservation {
    uint64_t mac;
    uint32_t address;
    std::string_view hostname;
};

/// The last that was heard of a client that has a reservation: its message and what was answered, as DHCP message types
/// (RFC 2132, section 9.6; 0 is none), and when, in seconds since the epoch. It does not survive a restart.
struct Sighting {
    uint32_t at_s = 0;
    uint8_t message = 0;
    uint8_t answer = 0;
};

/// A MAC whose reservation was taken back; remembered until `until_ms`.
struct Withdrawal {
    uint64_t mac;
    int64_t until_ms;
};

/// One subnet's reservations: 24 octets each, two indexes and the hostnames. Not thread-safe; Store's part.
class SubnetSet {
public:
    size_t size() const {
        return entries_.size();
    }
    Standing standing(uint64_t mac, int64_t now_ms) const;
    std::optional<Reservation> by_mac(uint64_t mac) const;
    std::optional<Reservation> by_address(uint32_t address) const;
    /// The address reserved for `mac`, 0 where there is none.
    uint32_t address_of(uint64_t mac) const;
    /// What was heard last of a client with a reservation.
    Sighting sighting(uint64_t mac) const;
    /// Takes note of a message from `mac`. False: it has no reservation. Readers may call it at the same time.
    bool see(uint64_t mac, Sighting sighting) const;
    /// Takes note that its last message was answered, likewise.
    void see_answer(uint64_t mac, uint8_t answer) const;
    /// Until when `mac` counts as withdrawn, 0 where it does not.
    int64_t withdrawn_until(uint64_t mac) const;
    Reservation at(size_t position) const;

    /// Puts the reservation in, over what its MAC had. A MAC that held the address loses it: its MAC is returned.
    std::optional<uint64_t> put(const NewReservation& reservation);
    /// Takes the MAC's reservation out. False: there was none.
    bool remove(uint64_t mac);
    /// Remembers the MAC as withdrawn, and forgets those whose time ended before `now_ms`.
    void withdraw(const Withdrawal& withdrawal, int64_t now_ms);

    const std::vector<Withdrawal>& withdrawals() const {
        return withdrawn_;
    }

private:
    struct Entry {
        uint64_t mac;
        uint32_t address;
        uint32_t name;              // offset in names_; 0 is none
        mutable uint64_t sighting;  // packed; by atomic operations, since readers change it
    };

    auto mac_at() const {
        return [this](uint32_t position) { return entries_[position].mac; };
    }
    auto address_at() const {
        return [this](uint32_t position) -> uint64_t { return entries_[position].address; };
    }
    auto withdrawn_mac_at() const {
        return [this](uint32_t position) { return withdrawn_[position].mac; };
    }
    std::string_view name_at(uint32_t offset) const;
    uint32_t add_name(std::string_view name);
    void drop_name(uint32_t offset);
    void remove_at(uint32_t position);
    void forget_withdrawal_at(uint32_t position);

    std::vector<Entry> entries_;
    PositionIndex<> by_mac_;
    PositionIndex<> by_address_;
    std::string names_ = std::string(1, '\0');  // hostnames, each ended by NUL
    size_t dead_names_ = 0;                     // octets of names_ that no entry points to
    std::vector<Withdrawal> withdrawn_;
    PositionIndex<> by_withdrawn_mac_;
    size_t next_sweep_ = 64;  // withdrawals at which the ended ones are looked for
};

class Store {
public:
    struct Change {
        size_t count;                 // reservations the subnet now has
        std::vector<uint64_t> freed;  // MACs that no longer have the address they had
    };

    /// Changes the subnet's set in one step: `unset` is taken out, then `set` put in. With `replaced_until_ms`,
    /// whatever is in neither is withdrawn too, until then.
    Change apply(uint32_t subnet_id, const std::vector<NewReservation>& set, const std::vector<Withdrawal>& unset,
                 std::optional<int64_t> replaced_until_ms, int64_t now_ms);

    /// Forgets the subnet, withdrawals and all, as if it had never been heard of.
    void forget(uint32_t subnet_id);

    Standing standing(uint32_t subnet_id, uint64_t mac, int64_t now_ms) const;
    /// The same for a client that has just sent a message of this DHCP type.
    Standing meet(uint32_t subnet_id, uint64_t mac, uint8_t message, int64_t now_ms) const;
    /// Whether exactly this address is reserved for exactly this client.
    bool reserves(uint32_t subnet_id, uint64_t mac, uint32_t address) const;
    /// Whether a lease of this client on this address must not be: it is withdrawn, has another address by now, or the
    /// address is another's.
    bool rules_out(uint32_t subnet_id, uint64_t mac, uint32_t address, int64_t now_ms) const;
    /// The same as `reserves` for an answer of this DHCP type that is about to go out to it. Address 0 is an answer
    /// without one.
    bool answers(uint32_t subnet_id, uint64_t mac, uint32_t address, uint8_t answer) const;
    /// Whether any subnet but this one has a reservation for the client.
    bool reserves_elsewhere(uint32_t subnet_id, uint64_t mac) const;
    Sighting sighting(uint32_t subnet_id, uint64_t mac) const;
    /// Milliseconds since the epoch, 0 where the client does not count as withdrawn.
    int64_t withdrawn_until(uint32_t subnet_id, uint64_t mac) const;
    std::optional<Reservation> by_mac(uint32_t subnet_id, uint64_t mac) const;
    std::optional<Reservation> by_address(uint32_t subnet_id, uint32_t address) const;
    std::vector<uint32_t> subnets() const;
    size_t size(uint32_t subnet_id) const;
    /// Up to `limit` reservations from `position` (0 is the first) on; fewer mean the end. Changes reorder them.
    std::vector<Reservation> page(uint32_t subnet_id, size_t position, size_t limit) const;

private:
    const SubnetSet* find(uint32_t subnet_id) const;

    std::mutex writer_;                 // held for a whole change, so that its preparation needs no other lock
    mutable std::shared_mutex access_;  // guards sets_ and what is in it
    std::map<uint32_t, SubnetSet> sets_;
};

}  // namespace leasehold

#endif
