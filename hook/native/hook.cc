// What Kea calls: load, unload, and the callouts.
//
// A callout's return value has no effect on the packet, only its status has. So where a doubt must drop, DROP is set
// first and taken back when all is proven. Nothing on the packet path logs, takes the GIL, or waits.
#include <cc/command_interpreter.h>
#include <cc/data.h>
#include <dhcp/dhcp4.h>
#include <dhcp/libdhcp++.h>
#include <dhcp/option_custom.h>
#include <dhcp/option_int.h>
#include <dhcp/pkt4.h>
#include <dhcpsrv/cfgmgr.h>
#include <dhcpsrv/shared_network.h>
#include <dhcpsrv/subnet.h>
#include <hooks/hooks.h>

#include <exception>
#include <optional>
#include <string>

#include "host_source.h"
#include "interpreter.h"
#include "kea.h"
#include "leasehold.h"
#include "pack.h"
#include "policy.h"
#include "state.h"

using isc::data::ConstElementPtr;
using isc::data::Element;
using isc::dhcp::Lease4Ptr;
using isc::dhcp::Pkt4Ptr;
using isc::hooks::CalloutHandle;
using isc::hooks::LibraryHandle;

namespace leasehold {
namespace {

// From 2.7.5 on Kea passes a pointer to a const subnet; getNextSubnet() returns what it passes.
using SubnetPtr = decltype(std::declval<isc::dhcp::Subnet4>().getNextSubnet({}));

constexpr const char* kCommands[] = {"leasehold-apply",     "leasehold-client-get", "leasehold-status",
                                     "reservation-add",     "reservation-del",      "reservation-get",
                                     "reservation-get-page"};

// What subnet4_select found out about the packet that this thread has before it, for the callouts that follow. Another
// library may park the packet, so that it goes on elsewhere: whoever asks says which packet is meant.
struct Selected {
    const isc::dhcp::Pkt4* query = nullptr;
    boost::posix_time::ptime received;  // tells it from an earlier packet in the same memory
    uint32_t subnet_id = 0;
    uint32_t first = 1;  // addresses of the subnet
    uint32_t last = 0;
    bool managed = false;
    bool renewing = false;  // Kea renews a lease for it

    bool is_of(const Pkt4Ptr& asked) const {
        return query == asked.get() && received == asked->getTimestamp();
    }
    bool contains(uint32_t address) const {
        return first <= address && address <= last;
    }
};
thread_local Selected selected;

template <typename Value>
Value argument(CalloutHandle& handle, const char* name) {
    Value value;
    handle.getArgument(name, value);
    return value;
}

Message message_of(uint8_t type) {
    switch (type) {
        case isc::dhcp::DHCPREQUEST:
            return Message::kRequest;
        case isc::dhcp::DHCPRELEASE:
            return Message::kRelease;
        default:
            return Message::kOther;
    }
}

struct Judged {
    Verdict verdict = Verdict::kDrop;
    Standing standing = Standing::kUnknown;
    uint32_t subnet_id = 0;
};

// Judges the packet for the subnet and those that share its network: Kea may serve it from any of them. The kindest
// verdict counts; a subnet that is not managed is an administrator's, served by Kea as ever.
Judged judge_for_network(const Pkt4Ptr& query, uint8_t type, uint64_t mac, const SubnetPtr& selected, int64_t at_ms) {
    const lh_unknown_clients mode = state().unknown_clients;
    Judged kindest;
    kindest.subnet_id = selected->getID();
    for (SubnetPtr subnet = selected; subnet; subnet = subnet->getNextSubnet(selected, query->getClasses())) {
        if (!is_managed(subnet)) {
            return {Verdict::kServe, Standing::kUnknown, subnet->getID()};
        }
        const Standing standing =
            mac == kNoMac ? Standing::kUnknown : state().store.meet(subnet->getID(), mac, type, at_ms);
        const Verdict verdict = judge(mode, standing, message_of(type));
        if (verdict < kindest.verdict || standing > kindest.standing) {
            kindest = {verdict, standing, subnet->getID()};
        }
        if (verdict == Verdict::kServe) {
            break;
        }
    }
    return kindest;
}

void push_event(LeaseEventType type, const Lease4Ptr& lease, uint64_t mac) {
    state().events.push(
        {now_ms(), lease->cltt_, mac, lease->subnet_id_, lease->addr_.toUint32(), lease->valid_lft_, type});
}

// A client in INIT-REBOOT (an address asked for, and no server named) that has no lease with this server gets NAK from
// an authoritative Kea, although the address is reserved for it: another server had granted it. With a server
// identifier Kea takes it for a client that selects us, and grants. Source: Dhcpv4Srv::assignLease of Kea 2.2.
void let_reboot(const Pkt4Ptr& query, uint32_t subnet_id, uint64_t mac) {
    using isc::dhcp::OptionCustom;
    const auto asked = query->options_.find(isc::dhcp::DHO_DHCP_REQUESTED_ADDRESS);
    if (asked == query->options_.end() || query->options_.count(isc::dhcp::DHO_DHCP_SERVER_IDENTIFIER) != 0) {
        return;
    }
    const auto address = boost::dynamic_pointer_cast<OptionCustom>(asked->second);
    const auto reserved = state().store.by_mac(subnet_id, mac);
    if (!address || !reserved || address->readAddress().toUint32() != reserved->address) {
        return;
    }
    const auto definition = isc::dhcp::LibDHCP::getOptionDef(DHCP4_OPTION_SPACE, isc::dhcp::DHO_DHCP_SERVER_IDENTIFIER);
    const boost::shared_ptr<OptionCustom> server(new OptionCustom(*definition, isc::dhcp::Option::V4));
    server->writeAddress(query->getLocalAddr());
    query->addOption(server);
}

void remember(const Pkt4Ptr& query, const SubnetPtr& subnet) {
    isc::dhcp::SharedNetwork4Ptr network;
    subnet->getSharedNetwork(network);
    const auto [prefix, length] = subnet->get();
    selected.query = query.get();
    selected.received = query->getTimestamp();
    selected.subnet_id = subnet->getID();
    selected.managed = is_managed(subnet);
    selected.first = prefix.toUint32();
    selected.last = selected.first | static_cast<uint32_t>(UINT64_C(0xFFFFFFFF) >> length);
    if (network) {
        selected.first = 1;  // none: Kea may go on to another subnet of it
        selected.last = 0;
    }
}

// The managed subnet that an answer with this address is from; nothing where it is an administrator's.
std::optional<uint32_t> managed_subnet_of(const Pkt4Ptr& query, uint32_t address) {
    if (selected.is_of(query) && (selected.contains(address) || address == 0)) {
        return selected.managed ? std::make_optional(selected.subnet_id) : std::nullopt;
    }
    return managed_subnet_with(address);
}

// Clients without a reservation have addresses on a managed subnet only where everything is allowed, and then none that
// is another's.
bool may_have_unreserved(uint32_t subnet_id, uint64_t mac, uint32_t address) {
    return state().unknown_clients == LH_ALLOW && !state().store.by_mac(subnet_id, mac) &&
           !state().store.by_address(subnet_id, address);
}

// Looked up without getOption(), which would copy the option for us.
uint32_t lease_time_of(const Pkt4Ptr& response) {
    const auto at = response->options_.find(isc::dhcp::DHO_DHCP_LEASE_TIME);
    const auto option = at != response->options_.end()
                            ? boost::dynamic_pointer_cast<isc::dhcp::OptionUint32>(at->second)
                            : isc::dhcp::OptionUint32Ptr();
    return option ? option->getValue() : 0;
}

// Leases that should have gone with their reservations: a Kea that was killed between the journal and its lease file
// still has them on file, and one without a lease database could delete none.
void settle_leases() {
    try {
        delete_leases_ruled_out(state().store, state().unsettled, Counted::kNo);
    } catch (const std::exception& why) {
        log(LH_ERROR, "LEASE_NOT_DELETED", std::string("leases that no longer have a reservation: ") + why.what());
    }
}

// A subnet that leaves the configuration takes its reservations along: where it comes back with a configuration that
// was long on its way, they would be others' by then. Not before the new configuration is in force, which it is not yet
// in dhcp4_srv_configured: Kea may still refuse it, and goes on with the old one (2.2:
// ControlledDhcpv4Srv::processConfig and commandConfigSetHandler). So this is called when a command has been processed,
// before its answer goes out; before the next command or configuration, since a configuration need not come by a
// command, nor name this library; and soon.
void forget_subnets_that_left() {
    const std::vector<uint32_t> left = subnets_that_left();
    for (const uint32_t subnet_id : left) {
        state().store.forget(subnet_id);
    }
    if (!left.empty()) {
        leasehold_forget(left.data(), left.size());
    }
}

// Kea answers NAK to a REQUEST for which it has no subnet. So a guest would be refused that renews with a server whose
// network others have by now, or whose message is between Kea's threads while the network is taken from it. Who knows
// nothing of a link says nothing there (RFC 2131, section 4.3.2: "it MUST remain silent").
bool is_of_a_link_that_others_serve(const Pkt4Ptr& query) {
    const lh_unknown_clients mode = state().unknown_clients;
    return query->getGiaddr().isV4Zero() && (mode == LH_REJECT || mode == LH_DROP);
}

}  // namespace
}  // namespace leasehold

using namespace leasehold;

// What Kea looks up by name.
#pragma GCC visibility push(default)
extern "C" {

int version() {
    return KEA_HOOKS_VERSION;
}

int multi_threading_compatible() {
    return 1;
}

int command(CalloutHandle& handle) {
    ConstElementPtr response;
    try {
        forget_subnets_that_left();
        const std::string text = argument<ConstElementPtr>(handle, "command")->str();
        const char* const answer = leasehold_command(text.c_str());
        response = answer != nullptr
                       ? ConstElementPtr(Element::fromJSON(answer))
                       : isc::config::createAnswer(isc::config::CONTROL_RESULT_ERROR,
                                                   "the command failed inside the leasehold library; see Kea's log");
    } catch (const std::exception& why) {
        response = isc::config::createAnswer(isc::config::CONTROL_RESULT_ERROR, why.what());
    }
    handle.setArgument("response", response);
    return 0;
}

int load(LibraryHandle& handle) {
    open_kea();
    std::string refusal = start_python();
    if (refusal.empty()) {
        const ConstElementPtr parameters = handle.getParameters();
        const char* const answer = leasehold_load(parameters ? parameters->str().c_str() : "{}");
        refusal = answer != nullptr ? answer : "";
    }
    if (!refusal.empty()) {
        log(LH_ERROR, "LOAD_FAILED", refusal);
        return 1;
    }
    for (const char* name : kCommands) {
        handle.registerCommandCallout(name, command);
    }
    register_host_source();
    return 0;
}

int unload() {
    if (start_python().empty()) {
        leasehold_unload();
    }
    deregister_host_source();
    close_kea();
    return 0;
}

int dhcp4_srv_configured(CalloutHandle& handle) {
    handle.setStatus(CalloutHandle::NEXT_STEP_DROP);
    try {
        forget_subnets_that_left();
        const auto io_service = argument<isc::asiolink::IOServicePtr>(handle, "io_context");
        read_configuration(io_service, argument<StagingConfig>(handle, "server_config"),
                           argument<ConstElementPtr>(handle, "json_config"));
        io_service->post(forget_subnets_that_left);
        add_host_source();
        state().is_last_library = is_last_library();
        settle_leases();
        leasehold_configured();
        handle.setStatus(CalloutHandle::NEXT_STEP_CONTINUE);
    } catch (const std::exception& why) {
        handle.setArgument("error",
                           std::string("the leasehold library cannot serve this configuration: ") + why.what());
    }
    return 0;
}

int command_processed(CalloutHandle&) {
    forget_subnets_that_left();
    return 0;
}

int subnet4_select(CalloutHandle& handle) {
    const auto before = handle.getStatus();
    selected.query = nullptr;
    selected.renewing = false;
    if (before != CalloutHandle::NEXT_STEP_CONTINUE) {
        return 0;  // an earlier library has decided
    }
    handle.setStatus(CalloutHandle::NEXT_STEP_DROP);
    uint64_t mac = kNoMac;
    try {
        const auto subnet = argument<SubnetPtr>(handle, "subnet4");
        const auto query = argument<Pkt4Ptr>(handle, "query4");
        if (!subnet) {
            if (!is_of_a_link_that_others_serve(query)) {
                handle.setStatus(before);
            }
            return 0;
        }
        mac = mac_of(query->getHWAddr());
        const int64_t at_ms = now_ms();
        const uint8_t type = query->getType();
        const Judged judged = judge_for_network(query, type, mac, subnet, at_ms);
        if (judged.verdict == Verdict::kServe) {
            if (type == isc::dhcp::DHCPREQUEST) {
                let_reboot(query, judged.subnet_id, mac);
            }
            remember(query, subnet);
            handle.setStatus(before);
            return 0;
        }
        const Reason reason = judged.standing == Standing::kWithdrawn ? Reason::kWithdrawn : Reason::kUnknown;
        state().rejections.count(judged.subnet_id, mac, reason, at_ms, type);
        if (judged.verdict == Verdict::kRefuse) {
            // Without a subnet Kea answers a REQUEST with NAK, whatever leases, pools and other reservations there are.
            // (With one it would keep silent about an address outside its pools that nobody holds.)
            handle.setStatus(CalloutHandle::NEXT_STEP_SKIP);
        }
    } catch (const std::exception&) {
        state().rejections.count(0, mac, Reason::kDoubt, now_ms());
    }
    return 0;
}

int lease4_renew(CalloutHandle&) {
    selected.renewing = true;
    return 0;
}

// The last gate, for offers and acknowledgements: the store may have changed since subnet4_select, and a managed subnet
// may have pools or reservations that are none of ours. (Not in lease4_select: there SKIP for a reserved address makes
// Kea 2.2 look into a conflicting lease that it does not have. Not in leases4_committed: there Kea parks each packet,
// which costs more than all the rest of this library.)
int pkt4_send(CalloutHandle& handle) {
    const auto before = handle.getStatus();
    handle.setStatus(CalloutHandle::NEXT_STEP_DROP);
    uint64_t mac = kNoMac;
    uint32_t subnet_id = 0;
    try {
        const auto response = argument<Pkt4Ptr>(handle, "response4");
        const uint32_t address = response->getYiaddr().toUint32();
        const auto query = argument<Pkt4Ptr>(handle, "query4");
        const auto subnet = managed_subnet_of(query, address);
        if (!subnet) {
            handle.setStatus(before);  // an administrator's, or an answer that says nothing of an address
            return 0;
        }
        subnet_id = *subnet;
        mac = mac_of(query->getHWAddr());
        const uint8_t type = response->getType();
        const bool its_own = state().store.answers(subnet_id, mac, address, type);
        if (address == 0) {
            handle.setStatus(before);  // a NAK, or the answer to INFORM
            return 0;
        }
        const bool acknowledges = type == isc::dhcp::DHCPACK;
        const int64_t at_ms = now_ms();
        if (!its_own && !may_have_unreserved(subnet_id, mac, address)) {
            if (acknowledges) {
                delete_lease_of(subnet_id, mac, address);
            }
            state().rejections.count(subnet_id, mac, Reason::kDoubt, at_ms);
            return 0;
        }
        if (acknowledges) {
            const bool renewed = selected.renewing && selected.is_of(query);
            state().events.push({at_ms, at_ms / 1000, mac, subnet_id, address, lease_time_of(response),
                                 renewed ? LeaseEventType::kRenewed : LeaseEventType::kAssigned});
        }
        // SKIP says that the answer is packed. Libraries after this one could still change it: then Kea packs.
        const bool packed = before == CalloutHandle::NEXT_STEP_CONTINUE && state().is_last_library && pack(*response);
        handle.setStatus(packed ? CalloutHandle::NEXT_STEP_SKIP : before);
    } catch (const std::exception&) {
        state().rejections.count(subnet_id, mac, Reason::kDoubt, now_ms());
    }
    return 0;
}

int lease4_release(CalloutHandle& handle) {
    const auto lease = argument<Lease4Ptr>(handle, "lease4");
    if (handle.getStatus() == CalloutHandle::NEXT_STEP_CONTINUE && is_managed(lease->subnet_id_)) {
        push_event(LeaseEventType::kReleased, lease, mac_of(lease->hwaddr_));
    }
    return 0;
}

// Only its owner may take an address out of service: a lease from before the reservation could.
int lease4_decline(CalloutHandle& handle) {
    const auto before = handle.getStatus();
    handle.setStatus(CalloutHandle::NEXT_STEP_DROP);
    const auto lease = argument<Lease4Ptr>(handle, "lease4");
    const uint64_t mac = mac_of(argument<Pkt4Ptr>(handle, "query4")->getHWAddr());
    if (!is_managed(lease->subnet_id_)) {
        handle.setStatus(before);
    } else if (const uint32_t address = lease->addr_.toUint32();
               !state().store.reserves(lease->subnet_id_, mac, address) &&
               !may_have_unreserved(lease->subnet_id_, mac, address)) {
        state().rejections.count(lease->subnet_id_, mac, Reason::kDoubt, now_ms());
    } else {
        handle.setStatus(before);
        if (before == CalloutHandle::NEXT_STEP_CONTINUE) {
            push_event(LeaseEventType::kDeclined, lease, mac);
        }
    }
    return 0;
}

int lease4_expire(CalloutHandle& handle) {
    const auto lease = argument<Lease4Ptr>(handle, "lease4");
    if (is_managed(lease->subnet_id_)) {
        push_event(LeaseEventType::kExpired, lease, mac_of(lease->hwaddr_));
    }
    return 0;
}

}  // extern "C"
#pragma GCC visibility pop
