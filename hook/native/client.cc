#include "client.h"

#include <cc/data.h>
#include <dhcp/pkt4.h>
#include <dhcpsrv/lease.h>

#include <algorithm>
#include <map>
#include <vector>

#include "kea.h"
#include "state.h"

using isc::asiolink::IOAddress;
using isc::data::Element;
using isc::data::ElementPtr;
using isc::dhcp::Lease4Ptr;

namespace leasehold {
namespace {

ElementPtr null() {
    return Element::create();
}

ElementPtr integer(int64_t value) {
    return Element::create(static_cast<long long>(value));
}

ElementPtr address_or_null(uint32_t address) {
    return address != 0 ? Element::create(IOAddress(address).toText()) : null();
}

// "DISCOVER", of DHCPDISCOVER.
ElementPtr message_name(uint8_t type) {
    const std::string name = isc::dhcp::Pkt4::getName(type);
    return type != 0 ? Element::create(name.rfind("DHCP", 0) == 0 ? name.substr(4) : name) : null();
}

ElementPtr describe(const Rejection& rejection) {
    ElementPtr told = Element::createMap();
    told->set("reason", Element::create(name_of(rejection.reason)));
    told->set("message", message_name(rejection.message));
    told->set("count", integer(static_cast<int64_t>(rejection.count)));
    told->set("first", integer(rejection.first_ms));
    told->set("last", integer(rejection.last_ms));
    return told;
}

ElementPtr describe(const Lease4Ptr& lease) {
    ElementPtr told = Element::createMap();
    const int64_t expires_s = lease->cltt_ + int64_t{lease->valid_lft_};
    const bool is_over = lease->stateExpiredReclaimed() || expires_s <= now_ms() / 1000;
    const char* const state = is_over ? "expired" : lease->stateDeclined() ? "declined" : "assigned";
    told->set("ip-address", Element::create(lease->addr_.toText()));
    const bool is_known = lease->hwaddr_ && !lease->hwaddr_->hwaddr_.empty();
    told->set("hw-address", is_known ? Element::create(lease->hwaddr_->toText(false)) : null());
    told->set("state", Element::create(state));
    told->set("cltt", integer(lease->cltt_));
    told->set("valid-lft", integer(lease->valid_lft_));
    told->set("expires", integer(expires_s * 1000));
    return told;
}

struct Known {
    uint32_t address = 0;
    int64_t withdrawn_until_ms = 0;
    Sighting sighting;
    std::vector<Rejection> rejections;
    std::vector<Lease4Ptr> leases;
};

ElementPtr describe(uint32_t subnet_id, const Known& known) {
    ElementPtr told = Element::createMap();
    told->set("subnet-id", integer(subnet_id));
    told->set("ip-address", address_or_null(known.address));
    told->set("withdrawn-until", known.withdrawn_until_ms > now_ms() ? integer(known.withdrawn_until_ms) : null());

    int64_t at_ms = int64_t{known.sighting.at_s} * 1000;
    uint8_t message = known.sighting.message;
    uint8_t answer = known.sighting.answer;
    const ElementPtr rejections = Element::createList();
    for (const Rejection& rejection : known.rejections) {
        rejections->add(describe(rejection));
        if (rejection.message != 0 && rejection.last_ms / 1000 > at_ms / 1000) {
            at_ms = rejection.last_ms;
            message = rejection.message;
            answer = 0;
        }
    }
    ElementPtr last = null();
    if (message != 0) {
        last = Element::createMap();
        last->set("type", message_name(message));
        last->set("at", integer(at_ms));
        last->set("answer", message_name(answer));
    }
    told->set("last-message", last);
    told->set("rejections", rejections);

    const ElementPtr leases = Element::createList();
    for (const Lease4Ptr& lease : known.leases) {
        leases->add(describe(lease));
    }
    told->set("leases", leases);
    return told;
}

}  // namespace

std::string describe_client(uint64_t mac) {
    std::map<uint32_t, Known> by_subnet;
    const Store& store = state().store;
    for (const uint32_t subnet_id : store.subnets()) {
        const auto reservation = store.by_mac(subnet_id, mac);
        const int64_t withdrawn_until_ms = store.withdrawn_until(subnet_id, mac);
        if (reservation || withdrawn_until_ms > now_ms()) {
            Known& known = by_subnet[subnet_id];
            known.address = reservation ? reservation->address : 0;
            known.withdrawn_until_ms = withdrawn_until_ms;
            known.sighting = store.sighting(subnet_id, mac);
        }
    }
    for (const Rejection& rejection : state().rejections.recent(mac)) {
        by_subnet[rejection.subnet_id].rejections.push_back(rejection);
    }
    for (const Lease4Ptr& lease : leases_of(mac)) {
        by_subnet[lease->subnet_id_].leases.push_back(lease);
    }
    for (auto& [subnet_id, known] : by_subnet) {
        // A lease in the way, too: somebody else's, or a declined one, which is nobody's.
        const Lease4Ptr lease = known.address != 0 ? lease_on(known.address) : nullptr;
        if (lease && std::none_of(known.leases.begin(), known.leases.end(),
                                  [&](const Lease4Ptr& each) { return each->addr_ == lease->addr_; })) {
            known.leases.push_back(lease);
        }
    }
    const ElementPtr subnets = Element::createList();
    for (const auto& [subnet_id, known] : by_subnet) {
        subnets->add(describe(subnet_id, known));
    }
    ElementPtr told = Element::createMap();
    told->set("subnets", subnets);
    return told->str();
}

}  // namespace leasehold
